/** A file that is read piece by piece: weights of any size cost the memory of one tensor. */
import { UserError } from "../errors.ts";

/** An open file and its size in bytes. */
export class RandomFile implements Disposable {
  private constructor(readonly path: string, private readonly file: Deno.FsFile, readonly size: number) {}

  /** @throws UserError when `path` is missing or no file */
  static open(path: string): RandomFile {
    let file: Deno.FsFile;
    try {
      file = Deno.openSync(path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      throw new UserError(`${path}: there is no such file; name the weights to read`);
    }
    const { isFile, size } = file.statSync();
    if (isFile) return new RandomFile(path, file, size);
    file.close();
    throw new UserError(`${path}: this is no file; name a .pth or .safetensors file`);
  }

  /** `length` bytes from byte `at`. @throws UserError when the file ends before */
  read(at: number, length: number): Uint8Array<ArrayBuffer> {
    if (!(at >= 0 && length >= 0 && at + length <= this.size)) {
      throw new UserError(`${this.path}: it ends at byte ${this.size}: it is cut; copy or download it again`);
    }
    const bytes = new Uint8Array(length);
    this.file.seekSync(at, Deno.SeekMode.Start);
    for (let have = 0; have < length;) {
      const got = this.file.readSync(bytes.subarray(have));
      if (got === null) {
        throw new UserError(`${this.path}: it became shorter while it was read; read it again`);
      }
      have += got;
    }
    return bytes;
  }

  [Symbol.dispose](): void {
    this.file.close();
  }
}
