import { assert, assertEquals } from "@std/assert";
import { native } from "../../lib/native/library.ts";
import { AdamW, ema, type Optimizer, Sgd } from "../../lib/ops/optimizer.ts";
import { memory, scope, Tensor, wait } from "../../lib/tensor.ts";
import { close, leakFree, wave } from "./wave.ts";

interface Golden {
  w: number[];
  b: number[];
  norms: number[];
  state: Record<string, number[][]>;
}
const goldens: Record<"sgd" | "adamw" | "amsgrad", Golden> = JSON.parse(
  Deno.readTextFileSync(new URL("../../fixtures/ops_b.json", import.meta.url)),
);

function tenSteps(golden: Golden, make: (p: Map<string, Tensor>) => Optimizer): Promise<void> {
  return scope(async () => {
    const w = Tensor.from(wave(30, 0.7, 0.1), 5);
    const b = Tensor.from(wave(7, 0.4, 0.9), 7);
    const optimizer = make(new Map([["w", w], ["b", b]]));
    for (let k = 0; k < 10; k++) {
      const gradients = new Map([[w, Tensor.from(wave(30, 0.3 + 0.1 * k, 0.5, k % 3 ? 2 : 0.1), 5)]]);
      if (k !== 4) gradients.set(b, Tensor.from(wave(7, 1.1 - 0.1 * k, 0.2), 7));
      const norm = optimizer.step(gradients, 0.05 * (1 - k / 10) ** 0.9, 1.5);
      await wait();
      close(norm.read(), [golden.norms[k]]);
    }
    close(w.read(), golden.w);
    close(b.read(), golden.b);
    for (const [name, [stateW, stateB]] of Object.entries(golden.state)) {
      const ours = name === "momentum_buffer" ? "momentum" : name;
      close(optimizer.state().get(`w.${ours}`)!.read(), stateW);
      close(optimizer.state().get(`b.${ours}`)!.read(), stateB);
    }
  });
}

Deno.test(
  "SGD: ten clipped Nesterov steps, one without a gradient of b, as torch.optim.SGD",
  leakFree(() => {
    return tenSteps(goldens.sgd, (p) => new Sgd(p));
  }),
);

Deno.test(
  "AdamW: ten clipped steps, one without a gradient of b, as torch.optim.AdamW",
  leakFree(() => {
    return tenSteps(goldens.adamw, (p) => new AdamW(p));
  }),
);

Deno.test(
  "AdamW with amsgrad: the same ten steps",
  leakFree(() => {
    const options = { betas: [0.9, 0.999], weightDecay: 3e-5, amsgrad: true } as const;
    return tenSteps(goldens.amsgrad, (p) => new AdamW(p, options));
  }),
);

Deno.test(
  "optimizers: written state resumes with the same bits",
  leakFree(() =>
    scope(() => {
      for (const make of [(p: Map<string, Tensor>) => new Sgd(p), (p: Map<string, Tensor>) => new AdamW(p)]) {
        const gradient = (k: number) => Tensor.from(wave(50000, 0.1 * k, 0.3), 10);
        const w = Tensor.from(wave(50000, 0.7, 0.1), 10);
        const optimizer = make(new Map([["w", w]]));
        for (let k = 0; k < 3; k++) optimizer.step(new Map([[w, gradient(k)]]), 0.01, 1);
        const copy = w.clone();
        const resumed = make(new Map([["w", copy]]));
        for (const [name, tensor] of optimizer.state()) resumed.state().get(name)!.write(tensor.read());
        optimizer.step(new Map([[w, gradient(3)]]), 0.01, 1);
        resumed.step(new Map([[copy, gradient(3)]]), 0.01, 1);
        assertEquals(copy.read(), w.read());
      }
    })
  ),
);

Deno.test(
  "optimizers: a gradient that is not finite changes nothing and shows in the norm",
  leakFree(() =>
    scope(() => {
      const w = Tensor.full(1, 2, 3);
      const teacher = Tensor.full(2, 2, 3);
      const optimizer = new AdamW(new Map([["w", w]]));
      const teachers = { of: new Map([[w, teacher]]), momentum: 0.9 };
      const norm = optimizer.step(new Map([[w, Tensor.full(NaN, 2, 3)]]), 0.1, 1, teachers);
      assert(Number.isNaN(norm.read()[0]));
      assertEquals(w.read(), new Float32Array(6).fill(1));
      assertEquals(teacher.read(), new Float32Array(6).fill(2));
      assertEquals(optimizer.state().get("w.step")!.read()[0], 0);
    })
  ),
);

Deno.test(
  "ema: teacher moves by 1 - momentum towards the student; momentum 0 copies",
  leakFree(() =>
    scope(() => {
      const [a, b] = [wave(40000, 0.7, 0.1), wave(40000, 1.3, 0.4)];
      const [t, s] = [Tensor.from(a, 4), Tensor.from(b, 4)];
      ema({ of: new Map([[s, t]]), momentum: 0.995 });
      close(t.read(), Array.from(a, (v, i) => 0.995 * v + 0.005 * b[i]));
      ema({ of: new Map([[s, t]]), momentum: 0 });
      assertEquals(t.read(), b);
    })
  ),
);

Deno.test(
  "optimizers: teachers follow in the same step as they follow after it, with the same bits",
  leakFree(() =>
    scope(() => {
      const betas = [0.9, 0.999] as const;
      const rules = [
        (p: Map<string, Tensor>) => new Sgd(p),
        (p: Map<string, Tensor>) => new AdamW(p),
        (p: Map<string, Tensor>) => new AdamW(p, { betas, amsgrad: true }),
      ];
      for (const make of rules) {
        // Moved with a teacher, over more than one stretch; moved without; still, with a teacher.
        const students = () => [40001, 30, 70].map((n) => Tensor.from(wave(n, 0.7, 0.1), 1));
        const teachers = ([w, , still]: Tensor[]) =>
          new Map([w, still].map((s, i) => [s, Tensor.from(wave(s.rows, 0.9 + i, 0.3), 1)]));
        const named = (all: Tensor[]) => new Map(all.map((t, i) => [`${i}`, t]));
        const [together, apart] = [students(), students()];
        const [with_, after] = [teachers(together), teachers(apart)];
        const [one, two] = [make(named(together)), make(named(apart))];
        for (let k = 1; k <= 3; k++) {
          const slopes = ([w, b]: Tensor[]) =>
            new Map([w, b].map((p) => [p, Tensor.from(wave(p.rows, 0.1 * k, 0.3), 1)]));
          one.step(slopes(together), 0.01, 1, { of: with_, momentum: 0.99 });
          two.step(slopes(apart), 0.01, 1);
          ema({ of: after, momentum: 0.99 });
        }
        together.forEach((t, i) => assertEquals(t.read(), apart[i].read()));
        const moved = [...after.values()];
        [...with_.values()].forEach((t, i) => assertEquals(t.read(), moved[i].read()));
      }
    })
  ),
);

Deno.test("optimizers: a disposed optimizer frees its state", () => {
  const before = memory().tensors;
  const w = Tensor.full(1, 2, 3);
  {
    using _ = new AdamW(new Map([["w", w]]));
    assertEquals(memory().tensors, before + 4);
  }
  w[Symbol.dispose]();
  native().vx_queue_sync();
  assertEquals(memory().tensors, before);
});
