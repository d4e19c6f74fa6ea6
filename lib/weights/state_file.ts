/** Weights files opened without reading their values: PyTorch's zip format and safetensors, as named tensors. */
import { headerLength, readHeader, widen, widthOf } from "../data/safetensors.ts";
import { UserError } from "../errors.ts";
import { PickledTensor, unpickle, type Value } from "./pickle.ts";
import { RandomFile } from "./random_file.ts";
import { ZipReader } from "./zip.ts";

/** A tensor of a file, read when it is asked for. */
export interface Stored {
  shape: number[];
  /** Equal for tensors that share their values. */
  place: string;
  /** The values in C order as float32. */
  read(): Float32Array;
}

/** An open file: its state dict, and what it says beside it. */
export interface StateFile extends Disposable {
  tensors: Map<string, Stored>;
  /** Tensors of the method that trained (S3D's `spark_weights`, or ours), by their own names. */
  method: Map<string, Stored>;
  /** The other entries: trainer_name, nnssl_adaptation_plan, citations; or the metadata of a safetensors file. */
  about: Map<string, Value>;
}

/** Longest pickle that is read, in bytes: nnssl writes its whole data index into it. */
const LONGEST_PICKLE = 512 << 20;
/** Most values that a tensor may have beyond those of its storage (an expanded view). */
const MOST_EXPANDED = 1 << 26;

const count = (shape: number[]) => shape.reduce((product, side) => product * side, 1);

/** Opens `path` by its content. @throws UserError when it is neither format, cut, damaged or unsafe */
export function openState(path: string): StateFile {
  const file = RandomFile.open(path);
  try {
    const head = file.read(0, Math.min(8, file.size));
    if (head[0] === 0x50 && head[1] === 0x4b) return openTorch(new ZipReader(file), path);
    if (head[0] === 0x80 && head[1] <= 5) {
      throw new UserError(
        `${path}: this is PyTorch's format from before 1.6; convert it in Python: ` +
          `torch.save(torch.load("${path}", map_location="cpu", weights_only=True), "new.pth")`,
      );
    }
    const header =
      path.endsWith(".safetensors") || head.length === 8 && head[4] + head[5] + head[6] + head[7] === 0
        ? file.read(0, Math.min(file.size, 8 + headerLength(head, file.size, path)))
        : undefined;
    if (!header) {
      throw new UserError(
        `${path}: this is neither a .pth zip archive of PyTorch nor a .safetensors file; name one of these`,
      );
    }
    const { spans, metadata, begin } = readHeader(header, file.size, path, true);
    const tensors = new Map(spans.map(({ key, dtype, shape, start, end }): [string, Stored] => [key, {
      shape,
      place: `${start}`,
      read: () => widen(dtype, file.read(begin + start, end - start)),
    }]));
    const close = () => file[Symbol.dispose]();
    return { tensors, method: new Map(), about: new Map(Object.entries(metadata)), [Symbol.dispose]: close };
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

/** Reads `tensor` of an archive: the stretch of its storage that it covers, then its strides. */
function readTensor(
  zip: ZipReader,
  root: string,
  tensor: PickledTensor,
  name: string,
  path: string,
): Float32Array {
  const { storage: { type, key, length }, offset, shape, stride } = tensor;
  const width = widthOf(type);
  const size = count(shape);
  const last = shape.reduce((sum, side, d) => sum + (side - 1) * stride[d], 0);
  const entry = `${root}data/${key}`;
  if (
    size && (offset + last >= length || zip.size(entry) !== length * width || size > length + MOST_EXPANDED)
  ) {
    throw new UserError(
      `${path}: ${name} of shape [${shape}] does not fit its storage of ${length} values; copy or save the file again`,
    );
  }
  if (!size) return new Float32Array(0);
  const values = widen(type, zip.read(entry, offset * width, (last + 1) * width));
  let expected = 1;
  const dense = shape.map((side, d) => [side, stride[d]]).reverse().every(([side, step]) => {
    const right = side === 1 || step === expected;
    expected *= side;
    return right;
  });
  if (dense) return values;
  const out = new Float32Array(size);
  const index = shape.map(() => 0);
  for (let i = 0, at = 0; i < size; i++) {
    out[i] = values[at];
    for (let d = shape.length - 1; d >= 0; d--) {
      at += stride[d];
      if (++index[d] < shape[d]) break;
      at -= stride[d] * shape[d];
      index[d] = 0;
    }
  }
  return out;
}

function openTorch(zip: ZipReader, path: string): StateFile {
  const pickle = zip.names.find((name) => /^([^/]+\/)?data\.pkl$/.test(name));
  if (!pickle) {
    throw new UserError(
      `${path}: this zip archive holds no data.pkl, so torch.save did not write it; name a .pth of weights`,
    );
  }
  const root = pickle.slice(0, -"data.pkl".length);
  if (zip.size(pickle)! > LONGEST_PICKLE) {
    throw new UserError(
      `${path}: its pickle has ${zip.size(pickle)} bytes; save the state dict alone and import that`,
    );
  }
  const order = zip.size(`${root}byteorder`)
    ? new TextDecoder().decode(zip.read(`${root}byteorder`))
    : "little";
  if (order !== "little") {
    throw new UserError(`${path}: its values are ${order}-endian; save it again on a little-endian machine`);
  }
  const whole = unpickle(zip.read(pickle), path);
  const tensorsOf = (value: Value) => {
    const found = new Map<string, Stored>();
    for (const [name, tensor] of value instanceof Map ? value : []) {
      if (typeof name !== "string" || !(tensor instanceof PickledTensor)) continue;
      const { storage, offset, shape, stride } = tensor;
      const place = [storage.key, offset, shape, stride].join(":");
      found.set(name, { shape, place, read: () => readTensor(zip, root, tensor, name, path) });
    }
    return found;
  };
  const about = whole instanceof Map ? whole as Map<string, Value> : new Map<string, Value>();
  const inner = ["network_weights", "state_dict", "model_state_dict", "model"].map((key) =>
    tensorsOf(about.get(key))
  );
  const spark = tensorsOf(about.get("spark_weights"));
  const wrapped = new Map([...spark].flatMap(([name, t]) => {
    return name.startsWith("architecture.") ? [[name.slice("architecture.".length), t] as const] : [];
  }));
  const tensors = [...inner, wrapped, tensorsOf(whole)].find((found) => found.size);
  if (!tensors) {
    throw new UserError(
      `${path}: it holds no tensors under network_weights or state_dict, nor is it a state dict itself; save model.state_dict()`,
    );
  }
  const method = new Map(
    [...spark, ...tensorsOf(about.get("method_weights"))].filter(([name]) =>
      !/^(architecture|encoder|decoder)\./.test(name)
    ),
  );
  return { tensors, method, about, [Symbol.dispose]: () => zip[Symbol.dispose]() };
}
