/** Kernels that NVRTC compiles where the library holds none that the card takes, kept from one run to the next. */
import { join } from "@std/path";
import { log } from "../config.ts";
import { native } from "../native/library.ts";

/** Makes the kernels ready for use, from their text or from what it made before. */
export interface Compiler {
  /** Of the text, the options, the card and the compiler's release. */
  name(): string;
  compile(): Uint8Array;
  /** False: the file is damaged or of other kernels. */
  take(file: Uint8Array): boolean;
}

/** NVRTC, for a compute capability (90: 9.0). Its calls throw a UserError where it is not installed. */
export function nvrtc(architecture: number): Compiler {
  const n = native();
  return {
    name() {
      const text = new Uint8Array(200);
      return new TextDecoder().decode(text.subarray(0, n.vx_kernels_name(architecture, text, text.length)));
    },
    compile() {
      const file = new Uint8Array(n.vx_kernels_compile(architecture));
      n.vx_kernels_read(file, file.length);
      return file;
    },
    take: (file) => n.vx_kernels_give(architecture, file, file.length) === 1,
  };
}

const why = (error: unknown) => (error as Error).message.split("\n")[0];

/**
 * Makes kernels ready: from `NAME.kernels` in `folder`, or compiled and left there. A damaged file is made again; a folder
 * that cannot be written costs the next run the time, and a line in the log.
 * @returns whether they were compiled now
 */
export function keptKernels(compiler: Compiler, folder: string): boolean {
  const file = join(folder, `${compiler.name()}.kernels`);
  try {
    if (compiler.take(Deno.readFileSync(file))) return false;
    log(`${file} is damaged: the kernels are compiled again`);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) log(`${file} cannot be read: ${why(error)}`);
  }
  const begin = performance.now();
  log("compiling the kernels for this GPU");
  const bytes = compiler.compile();
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  const partial = `${file}.${Deno.pid}.partial`;
  try {
    Deno.mkdirSync(folder, { recursive: true });
    Deno.writeFileSync(partial, bytes);
    Deno.renameSync(partial, file);
    log(`compiled in ${seconds} s, kept in ${file}`);
  } catch (error) {
    try {
      Deno.removeSync(partial);
    } catch { /* it was not made */ }
    log(`compiled in ${seconds} s, not kept: ${why(error)}; --kernels names a folder that can be written`);
  }
  return true;
}

/** Turns the GPU on, its kernels ready. @throws UserError, in one sentence, where there is no GPU that works */
export function useCard(folder: string): void {
  native().vx_device_use(true);
  try {
    const architecture = native().vx_kernels_missing();
    if (architecture) keptKernels(nvrtc(architecture), folder);
  } catch (error) {
    native().vx_device_use(false);
    throw error;
  }
}
