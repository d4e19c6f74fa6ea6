/** Kernels compiled on first use: kept, taken again, made again when damaged, and no run ends where they cannot be kept. */
import { assertEquals, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { UserError } from "../../lib/errors.ts";
import { type Compiler, keptKernels } from "../../lib/gpu/kernels.ts";

/** A compiler whose kernels are three bytes that begin with 7. */
function toy(): Compiler & { compiled: number } {
  return {
    compiled: 0,
    name: () => "sm_00-toy",
    compile() {
      this.compiled++;
      return Uint8Array.of(7, 1, 2);
    },
    take: (file) => file.length === 3 && file[0] === 7,
  };
}

Deno.test("kernels: compiled once, taken from the folder afterwards, made again when the file is damaged", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const compiler = toy();
    const kept = join(folder, "deep", "kernels");
    const file = join(kept, "sm_00-toy.kernels");
    assertEquals([1, 2].map(() => keptKernels(compiler, kept)), [true, false]);
    assertEquals([...Deno.readDirSync(kept)].map(({ name }) => name), ["sm_00-toy.kernels"]);
    for (const damage of [[7, 1], [0, 1, 2], []]) {
      Deno.writeFileSync(file, Uint8Array.from(damage));
      assertEquals(keptKernels(compiler, kept), true);
      assertEquals([...Deno.readFileSync(file)], [7, 1, 2]);
    }
    assertEquals(compiler.compiled, 4);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("kernels: a folder that cannot be written ends no run, a compiler that fails does", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const file = join(folder, "a file");
    Deno.writeTextFileSync(file, "no folder");
    assertEquals(keptKernels(toy(), file), true);
    assertEquals(keptKernels(toy(), join(file, "below")), true);
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["a file"]);
    const failing = {
      ...toy(),
      compile: () => {
        throw new UserError("NVRTC fails");
      },
    };
    assertThrows(() => keptKernels(failing, folder), UserError, "NVRTC fails");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
