/** gzip (RFC 1952) with a limit on what comes out: several members in a row, checked CRC, no bombs. */
import zlib from "node:zlib";
import { UserError } from "../errors.ts";

/** True when `bytes` begin as a gzip stream does, whatever the file is called. */
export function isGzip(bytes: Uint8Array): boolean {
  return bytes.length > 2 && bytes[0] === 0x1f && bytes[1] === 0x8b && bytes[2] === 8;
}

/**
 * Inflates all members of `bytes`; what follows the last member (padding, junk) is left out, and so are members
 * that begin at or after `limit` bytes of output.
 * @param limit most bytes that may come out; one member going beyond it is refused
 * @param partial `bytes` is the beginning of a longer file: give what there is and check nothing
 * @throws UserError when the stream is cut, damaged or larger than `limit`
 */
export function gunzip(bytes: Uint8Array, name: string, limit: number, partial = false): Uint8Array {
  const parts: Uint8Array[] = [];
  let total = 0;
  for (let at = 0; at < bytes.length && total < limit && isGzip(bytes.subarray(at));) {
    at = skipMemberHeader(bytes, at);
    if (at >= bytes.length && partial) break;
    const { part, used } = inflate(bytes.subarray(at), name, limit - total, partial);
    at += used;
    if (!partial) {
      const view = new DataView(bytes.buffer, bytes.byteOffset + at);
      if (view.byteLength < 8) {
        throw new UserError(`${name}: the gzip stream is cut before its checksum; copy the file again`);
      }
      if (view.getUint32(0, true) !== zlib.crc32(part) >>> 0) {
        throw new UserError(
          `${name}: the gzip checksum does not match its content; the file is damaged, copy it again`,
        );
      }
    }
    at += 8;
    parts.push(part);
    total += part.length;
  }
  if (parts.length === 1) return parts[0];
  const out = new Uint8Array(total);
  let to = 0;
  for (const part of parts) {
    out.set(part, to);
    to += part.length;
  }
  return out;
}

function inflate(bytes: Uint8Array, name: string, limit: number, partial: boolean) {
  try {
    const finishFlush = partial ? zlib.constants.Z_SYNC_FLUSH : zlib.constants.Z_FINISH;
    const options = { info: true, maxOutputLength: limit, finishFlush };
    const result = zlib.inflateRawSync(bytes, options) as unknown as {
      buffer: Uint8Array;
      engine: { bytesWritten: number };
    };
    const { buffer, byteOffset, length } = result.buffer;
    return { part: new Uint8Array(buffer, byteOffset, length), used: result.engine.bytesWritten };
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    if (code === "ERR_BUFFER_TOO_LARGE") {
      throw new UserError(
        `${name}: the gzip stream expands beyond the ${limit} bytes that its header allows; refused as unsafe`,
      );
    }
    throw new UserError(`${name}: the gzip stream is cut or damaged (${message}); copy the file again`);
  }
}

function skipMemberHeader(bytes: Uint8Array, at: number): number {
  const flags = bytes[at + 3];
  let end = at + 10;
  if (flags & 4) end += 2 + bytes[end] + 256 * bytes[end + 1];
  for (const flag of [8, 16]) {
    if (flags & flag) {
      while (end < bytes.length && bytes[end] !== 0) end++;
      end++;
    }
  }
  return flags & 2 ? end + 2 : end;
}
