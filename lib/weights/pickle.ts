/**
 * The part of pickle that state dicts of PyTorch need (protocols 2 to 4), as data: nothing is imported or called. A fixed
 * list of globals has a meaning here; any other is refused by name. A pickle has no jumps, so reading always ends.
 */
import { UserError } from "../errors.ts";

/** A tensor as a pickle describes it: `shape` and `stride` in elements, from `offset` of a storage. */
export class PickledTensor {
  constructor(
    readonly storage: Storage,
    readonly offset: number,
    readonly shape: number[],
    readonly stride: number[],
  ) {}
}

/** Values of one type in the archive entry `data/<key>`. */
export interface Storage {
  /** Type in the words of safetensors: F32, F16 ... */
  type: string;
  key: string;
  length: number;
}

/** A name that stands for something of Python. */
class Global {
  constructor(readonly name: string) {}
}

/** What a pickle holds: lists and tuples are arrays, dicts are maps. */
export type Value = unknown;

const STORAGES: Record<string, string> = {
  FloatStorage: "F32",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  DoubleStorage: "F64",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL",
};

/** A numpy scalar type: "f8" and the like, little endian unless told otherwise. */
class NumpyType {
  big = false;
  constructor(readonly code: string) {}
}

function scalar(type: Value, bytes: Value): Value {
  if (!(type instanceof NumpyType) || !(bytes instanceof Uint8Array)) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const little = !type.big;
  const read: Record<string, () => number | boolean> = {
    f8: () => view.getFloat64(0, little),
    f4: () => view.getFloat32(0, little),
    i8: () => Number(view.getBigInt64(0, little)),
    u8: () => Number(view.getBigUint64(0, little)),
    i4: () => view.getInt32(0, little),
    u4: () => view.getUint32(0, little),
    b1: () => view.getUint8(0) !== 0,
  };
  return Object.hasOwn(read, type.code) && bytes.length === Number(type.code[1])
    ? read[type.code]()
    : undefined;
}

const wholes = (v: Value): v is number[] =>
  Array.isArray(v) && v.every((n) => Number.isSafeInteger(n) && n >= 0);

function tensor([storage, offset, shape, stride]: Value[]): Value {
  const { type, key } = (storage ?? {}) as Partial<Storage>;
  if (!type || key === undefined || !wholes([offset]) || !wholes(shape) || !wholes(stride)) return undefined;
  return shape.length === stride.length
    ? new PickledTensor(storage as Storage, offset as number, shape, stride)
    : undefined;
}

/** What a call of each known global gives; undefined: its arguments are not as they must be. */
const CALLS: Record<string, (args: Value[]) => Value> = {
  "collections.OrderedDict": (args) => args.length === 0 ? new Map() : pairs(args[0]),
  "torch._utils._rebuild_tensor_v2": tensor,
  "torch._utils._rebuild_tensor": tensor,
  "torch._utils._rebuild_parameter": ([data]) => data instanceof PickledTensor ? data : undefined,
  "torch.Size": ([sides]) => wholes(sides) ? sides : undefined,
  "torch.device": (args) => args.join(":"),
  "numpy.dtype": ([code]) => typeof code === "string" ? new NumpyType(code) : undefined,
  "numpy.core.multiarray.scalar": ([type, bytes]) => scalar(type, bytes),
  "numpy._core.multiarray.scalar": ([type, bytes]) => scalar(type, bytes),
  "_codecs.encode": ([text, code]) =>
    typeof text === "string" && code === "latin1"
      ? Uint8Array.from(text, (letter) => letter.charCodeAt(0))
      : undefined,
};

function pairs(list: Value): Value {
  return Array.isArray(list) && list.every((p) => Array.isArray(p) && p.length === 2)
    ? new Map(list as [Value, Value][])
    : undefined;
}

/** Names that may stand in a pickle without being called. */
const known = (name: string) =>
  Object.hasOwn(CALLS, name) ||
  /^torch\.(float16|bfloat16|float32|float64|int8|int16|int32|int64|uint8|bool)$/.test(name) ||
  (name.startsWith("torch.") && Object.hasOwn(STORAGES, name.slice(6)));

const MARK = Symbol("mark");

/**
 * The value that `bytes` describe; `file` is used in errors.
 * @throws UserError for a global that no state dict needs, an unknown instruction, or a damaged pickle
 */
export function unpickle(bytes: Uint8Array, file: string): Value {
  const fail = (what: string): never => {
    throw new UserError(`${file}: ${what}; save the state dict alone with torch.save and import that`);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const text = new TextDecoder("utf-8", { ignoreBOM: true });
  const stack: Value[] = [];
  const memo = new Map<number, Value>();
  let at = 0;

  const take = (length: number): Uint8Array => {
    if (at + length > bytes.length) fail("its pickle is cut");
    at += length;
    return bytes.subarray(at - length, at);
  };
  const u8 = () => take(1)[0];
  const u16 = () => (take(2), view.getUint16(at - 2, true));
  const u32 = () => (take(4), view.getUint32(at - 4, true));
  const line = () => {
    const end = bytes.indexOf(10, at);
    if (end < 0) fail("its pickle is cut");
    const found = text.decode(bytes.subarray(at, end));
    at = end + 1;
    return found;
  };
  const pop = (): Value => {
    if (!stack.length || stack.at(-1) === MARK) fail(`its pickle is damaged at byte ${at}`);
    return stack.pop();
  };
  const top = (): Value => {
    if (!stack.length) fail(`its pickle is damaged at byte ${at}`);
    return stack.at(-1);
  };
  const marked = (): Value[] => {
    const mark = stack.lastIndexOf(MARK);
    if (mark < 0) fail(`its pickle is damaged at byte ${at}`);
    const items = stack.splice(mark);
    items.shift();
    return items;
  };
  const tuple = (size: number) => {
    const items = Array.from({ length: size }, pop).reverse();
    stack.push(items);
  };
  const lookUp = (name: string) => {
    if (!known(name)) {
      fail(
        `it asks for ${
          JSON.stringify(name.slice(0, 100))
        }, which weights do not need and which could run code: refused`,
      );
    }
    stack.push(new Global(name));
  };
  const append = (items: Value[]) => {
    const list = top();
    if (!Array.isArray(list)) return fail(`its pickle is damaged at byte ${at}`);
    for (const item of items) list.push(item);
  };
  const set = (items: Value[]) => {
    const map = top();
    if (!(map instanceof Map) || items.length % 2) return fail(`its pickle is damaged at byte ${at}`);
    for (let i = 0; i < items.length; i += 2) map.set(items[i], items[i + 1]);
  };
  const call = (args: Value, callee: Value) => {
    if (!(callee instanceof Global) || !Object.hasOwn(CALLS, callee.name) || !Array.isArray(args)) {
      return fail(`its pickle calls what is no function at byte ${at}`);
    }
    const result = CALLS[callee.name](args);
    if (result === undefined) fail(`it holds a ${callee.name} of a kind that is not read`);
    stack.push(result);
  };
  /** OrderedDict gets attributes (`_metadata`), which are left out; a numpy type gets its byte order. */
  const build = (state: Value) => {
    const target = top();
    if (target instanceof NumpyType && Array.isArray(state)) target.big = state[1] === ">";
    else if (!(target instanceof Map)) fail(`its pickle is damaged at byte ${at}`);
  };
  const persistent = (id: Value) => {
    const [kind, type, key, , length] = Array.isArray(id) ? id : [];
    const dtype = type instanceof Global ? STORAGES[type.name.slice(6)] : undefined;
    if (kind !== "storage" || !dtype || typeof key !== "string" || !wholes([length])) {
      fail("it holds a storage of a kind that is not read");
    }
    stack.push({ type: dtype, key, length } as Storage);
  };
  const long = (size: number) => {
    if (size > 8) fail("it holds a number of more than 64 bits");
    let value = 0n;
    take(size).forEach((byte, i) => value |= BigInt(byte) << BigInt(8 * i));
    stack.push(Number(BigInt.asIntN(8 * size, value)));
  };

  for (;;) {
    const op = String.fromCharCode(u8());
    switch (op) {
      case "\x80": // PROTO
        if (u8() > 5) fail("its pickle has an unknown protocol");
        break;
      case "\x95": // FRAME
        take(8);
        break;
      case "(":
        stack.push(MARK);
        break;
      case "}":
        stack.push(new Map());
        break;
      case "]":
      case ")":
        stack.push([]);
        break;
      case "l":
      case "t":
        stack.push(marked());
        break;
      case "\x85":
      case "\x86":
      case "\x87":
        tuple(op.charCodeAt(0) - 0x84);
        break;
      case "X":
        stack.push(text.decode(take(u32())));
        break;
      case "\x8c":
        stack.push(text.decode(take(u8())));
        break;
      case "B":
        stack.push(take(u32()));
        break;
      case "C":
        stack.push(take(u8()));
        break;
      case "J":
        take(4);
        stack.push(view.getInt32(at - 4, true));
        break;
      case "K":
        stack.push(u8());
        break;
      case "M":
        stack.push(u16());
        break;
      case "\x8a":
        long(u8());
        break;
      case "G":
        take(8);
        stack.push(view.getFloat64(at - 8));
        break;
      case "\x88":
      case "\x89":
        stack.push(op === "\x88");
        break;
      case "N":
        stack.push(null);
        break;
      case "c":
        lookUp(`${line()}.${line()}`);
        break;
      case "\x93": {
        const name = pop();
        lookUp(`${pop()}.${name}`);
        break;
      }
      case "R":
        call(pop(), pop());
        break;
      case "b":
        build(pop());
        break;
      case "Q":
        persistent(pop());
        break;
      case "s":
        set([pop(), pop()].reverse());
        break;
      case "u":
        set(marked());
        break;
      case "a":
        append([pop()]);
        break;
      case "e":
        append(marked());
        break;
      case "q":
        memo.set(u8(), top());
        break;
      case "r":
        memo.set(u32(), top());
        break;
      case "\x94":
        memo.set(memo.size, top());
        break;
      case "h":
      case "j": {
        const key = op === "h" ? u8() : u32();
        if (!memo.has(key)) fail(`its pickle is damaged at byte ${at}`);
        stack.push(memo.get(key));
        break;
      }
      case ".":
        return pop();
      default:
        fail(`its pickle holds instruction ${op.charCodeAt(0)}, which weights do not need: refused`);
    }
  }
}
