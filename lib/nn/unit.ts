/** Convolution, instance norm and LeakyReLU: what the U-Nets are made of. */
import { conv3d, type Joined } from "../ops/conv3d.ts";
import { densify } from "../ops/densify.ts";
import { instanceNorm } from "../ops/norm.ts";
import { Grid, type Tensor } from "../tensor.ts";
import type { Parameters } from "./parameters.ts";

const SLOPE = 0.01;

/** A layer; a residual is added before the activation; `gather` comes between convolution and norm. */
export type Layer<X = Tensor> = (x: X, residual?: Tensor, gather?: (x: Tensor) => Tensor) => Tensor;

/**
 * Convolution `<name>.conv`, instance norm `<name>.norm` and, unless `plain`, LeakyReLU with slope 0.01. `he`: initial
 * values of the convolution as in `Parameters.affine`; `still`: weight and bias of the norm start at 0.
 */
export function unit(
  p: Parameters,
  name: string,
  cIn: number,
  cOut: number,
  o: { kernel?: 1 | 3; stride?: 1 | 2; plain?: boolean; bias?: boolean; he?: boolean; still?: boolean } = {},
): Layer<Tensor | Joined> {
  const { kernel = 3, stride = 1, plain = false, bias = true, he = false, still = false } = o;
  const shape = [cOut, cIn, kernel, kernel, kernel];
  const conv = p.affine(`${name}.conv`, shape, cIn * kernel ** 3, cOut, bias, he);
  const gamma = p.add(`${name}.norm.weight`, [cOut], () => still ? 0 : 1);
  const beta = p.add(`${name}.norm.bias`, [cOut], () => 0);
  return (x, residual, gather = (y) => y) =>
    instanceNorm(
      gather(conv3d(x, conv.weight, conv.bias, stride, true)),
      gamma,
      beta,
      plain ? {} : { residual, slope: SLOPE },
    );
}

/** A masked tensor whose blocks are one voxel wide cannot be halved: from there on the network is dense. */
export function divisible(x: Tensor): Tensor {
  const { grid, side } = x.space;
  return side.every((s) => s % 2 === 0) ? x : densify(x, null, Grid.dense(grid.samples));
}
