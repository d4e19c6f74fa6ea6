/**
 * SGD with Nesterov momentum, AdamW (Loshchilov and Hutter 2019), and the moving average of a teacher. The rules are
 * those of torch.optim; weight decay reaches every parameter (nnssl). Gradients are
 * clipped by their global L2 norm inside the update, so that a step never waits for the host.
 */
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";

/** Teachers by the parameter that each follows, and the share of themselves that they keep in a step. */
export interface Teachers {
  of: Map<Tensor, Tensor>;
  momentum: number;
}

/** What a training loop needs of an optimizer. Owns its state tensors: dispose of it, or make it inside a scope. */
export interface Optimizer extends Disposable {
  /** What it trains, by name. */
  readonly parameters: Map<string, Tensor>;
  /**
   * One update. Parameters with no entry in `gradients` stay as they are.
   * @param clip largest global L2 norm of the gradients; Infinity: no clipping
   * @param teachers move as by `ema`, after the parameters that they follow
   * @returns the norm before clipping, a tensor of one value to read after `wait()`. When it is not finite, nothing
   *   has changed.
   */
  step(gradients: Map<Tensor, Tensor>, lr: number, clip: number, teachers?: Teachers): Tensor;
  /** State tensors by `<parameter>.<name>`: save their values, and `write` them back to resume with the same bits. */
  state(): Map<string, Tensor>;
}

type List = readonly [handles: Uint32Array, length: number];
/** Four lists, each with its length, as the native updates take them. */
type Lists = readonly [...List, ...List, ...List, ...List];

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

  /** Moves all parameters at once. `lists`: handles of parameters, gradients, the states of each in turn, teachers. */
  protected abstract update(lists: Lists, norm: Tensor, lr: number, clip: number, keep: number): void;

  /** The state tensors of one parameter as the native update takes them. */
  protected abstract order(state: Record<string, Tensor>): number[];

  step(gradients: Map<Tensor, Tensor>, lr: number, clip: number, teachers?: Teachers): Tensor {
    const moved = [...this.parameters].filter(([, p]) => gradients.has(p));
    const list = (handles: Iterable<number>): List => {
      const made = Uint32Array.from(handles);
      return [made, made.length];
    };
    const slopes = list(moved.map(([, p]) => gradients.get(p)!.handle));
    const norm = new Tensor(native().vx_global_norm(...slopes), 1, 1);
    const lists = [
      ...list(moved.map(([, p]) => p.handle)),
      ...slopes,
      ...list(moved.flatMap(([name]) => this.order(this.#state.get(name)!))),
      ...list(moved.map(([, p]) => teachers?.of.get(p)?.handle ?? 0)),
    ] as const;
    this.update(lists, norm, lr, clip, teachers?.momentum ?? 0);
    const still = [...teachers?.of ?? []].filter(([student]) => !gradients.has(student));
    if (still.length) ema({ of: new Map(still), momentum: teachers!.momentum });
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

  protected override update(lists: Lists, norm: Tensor, lr: number, clip: number, keep: number): void {
    const { momentum, nesterov, weightDecay } = this.#options;
    native().vx_sgd_step(...lists, norm.handle, lr, clip, momentum, nesterov, weightDecay, keep);
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

  protected override update(lists: Lists, norm: Tensor, lr: number, clip: number, keep: number): void {
    const { betas, eps, weightDecay } = this.#options;
    native().vx_adamw_step(...lists, norm.handle, lr, clip, ...betas, eps, weightDecay, keep);
  }
}

/**
 * teacher = momentum * teacher + (1 - momentum) * student, of all teachers; momentum 0 copies.
 * @throws when a teacher has another size than its student
 */
export function ema({ of, momentum }: Teachers): void {
  const students = Uint32Array.from(of.keys(), (t) => t.handle);
  const teachers = Uint32Array.from(of.values(), (t) => t.handle);
  native().vx_ema(teachers, teachers.length, students, students.length, momentum);
}
