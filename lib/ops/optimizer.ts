/**
 * SGD with Nesterov momentum, AdamW (Loshchilov and Hutter 2019), and the moving average of a teacher. The rules are
 * those of torch.optim; weight decay reaches every parameter (nnssl). Gradients are
 * clipped by their global L2 norm inside the update, so that a step never waits for the host.
 */
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";

/** What a training loop needs of an optimizer. Owns its state tensors: dispose of it, or make it inside a scope. */
export interface Optimizer extends Disposable {
  /** What it trains, by name. */
  readonly parameters: Map<string, Tensor>;
  /**
   * One update. Parameters with no entry in `gradients` stay as they are.
   * @param clip largest global L2 norm of the gradients; Infinity: no clipping
   * @returns the norm before clipping, a tensor of one value to read after `wait()`. When it is not finite, nothing
   *   has changed.
   */
  step(gradients: Map<Tensor, Tensor>, lr: number, clip: number): Tensor;
  /** State tensors by `<parameter>.<name>`: save their values, and `write` them back to resume with the same bits. */
  state(): Map<string, Tensor>;
}

abstract class Base implements Optimizer {
  readonly #state: Map<string, Record<string, Tensor>>;

  constructor(readonly parameters: Map<string, Tensor>, names: Record<string, "like" | "scalar">) {
    this.#state = new Map(
      [...parameters].map(([name, p]) => [
        name,
        Object.fromEntries(
          Object.entries(names).map(([key, kind]) => [
            key,
            kind === "like" ? Tensor.full(0, p.rows, p.channels) : Tensor.full(0, 1, 1),
          ]),
        ),
      ]),
    );
  }

  /** Moves all parameters at once. `handles`: parameters, gradients, and the states of each in turn. */
  protected abstract update(handles: Uint32Array[], norm: Tensor, lr: number, clip: number): void;

  /** The state tensors of one parameter as the native update takes them. */
  protected abstract order(state: Record<string, Tensor>): number[];

  step(gradients: Map<Tensor, Tensor>, lr: number, clip: number): Tensor {
    const moved = [...this.parameters].filter(([, p]) => gradients.has(p));
    const parameters = Uint32Array.from(moved, ([, p]) => p.handle);
    const slopes = Uint32Array.from(moved, ([, p]) => gradients.get(p)!.handle);
    const states = Uint32Array.from(moved.flatMap(([name]) => this.order(this.#state.get(name)!)));
    const norm = new Tensor(native().vx_global_norm(slopes, slopes.length), 1, 1);
    this.update([parameters, slopes, states], norm, lr, clip);
    return norm;
  }

  state(): Map<string, Tensor> {
    return new Map(
      [...this.#state].flatMap(([name, parts]) =>
        Object.entries(parts).map(([key, tensor]) => [`${name}.${key}`, tensor] as const)
      ),
    );
  }

  [Symbol.dispose](): void {
    for (const tensor of this.state().values()) tensor[Symbol.dispose]();
  }
}

/** torch.optim.SGD with dampening 0. Defaults: the preset of the convolutional networks. State: `momentum`. */
export class Sgd extends Base {
  readonly #options: { momentum: number; nesterov: boolean; weightDecay: number };

  constructor(
    parameters: Map<string, Tensor>,
    options: { momentum?: number; nesterov?: boolean; weightDecay?: number } = {},
  ) {
    super(parameters, { momentum: "like" });
    this.#options = { momentum: 0.99, nesterov: true, weightDecay: 3e-5, ...options };
  }

  protected override order({ momentum }: Record<string, Tensor>): number[] {
    return [momentum.handle];
  }

  protected override update([p, g, states]: Uint32Array[], norm: Tensor, lr: number, clip: number): void {
    const { momentum, nesterov, weightDecay } = this.#options;
    const lists = [p, p.length, g, g.length, states, states.length] as const;
    native().vx_sgd_step(...lists, norm.handle, lr, clip, momentum, nesterov, weightDecay);
  }
}

/**
 * torch.optim.AdamW. Defaults: the preset of the transformers. State: `exp_avg`, `exp_avg_sq`, `step`, and with amsgrad
 * `max_exp_avg_sq`.
 */
export class AdamW extends Base {
  readonly #options: { betas: readonly [number, number]; eps: number; weightDecay: number };

  constructor(
    parameters: Map<string, Tensor>,
    options: {
      betas?: readonly [number, number];
      eps?: number;
      weightDecay?: number;
      amsgrad?: boolean;
    } = {},
  ) {
    const largest: Record<string, "like"> = options.amsgrad ? { max_exp_avg_sq: "like" } : {};
    super(parameters, { exp_avg: "like", exp_avg_sq: "like", ...largest, step: "scalar" });
    this.#options = { betas: [0.9, 0.98], eps: 1e-8, weightDecay: 5e-2, ...options };
  }

  protected override order(state: Record<string, Tensor>): number[] {
    return [state.exp_avg, state.exp_avg_sq, state.max_exp_avg_sq, state.step].map((t) => t?.handle ?? 0);
  }

  protected override update([p, g, states]: Uint32Array[], norm: Tensor, lr: number, clip: number): void {
    const { betas, eps, weightDecay } = this.#options;
    const lists = [p, p.length, g, g.length, states, states.length] as const;
    native().vx_adamw_step(...lists, norm.handle, lr, clip, ...betas, eps, weightDecay);
  }
}

/**
 * teacher = momentum * teacher + (1 - momentum) * student, for every name of the teacher; momentum 0 copies.
 * @throws when the student lacks a name or a shape differs
 */
export function ema(teacher: Map<string, Tensor>, student: Map<string, Tensor>, momentum: number): void {
  const students = Uint32Array.from(teacher, ([name]) => {
    const found = student.get(name);
    if (!found) throw new Error(`ema: the student has no ${name}`);
    return found.handle;
  });
  const teachers = Uint32Array.from(teacher.values(), (t) => t.handle);
  native().vx_ema(teachers, teachers.length, students, students.length, momentum);
}
