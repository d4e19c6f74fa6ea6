/**
 * Consistent View Alignment: masked autoencoding of two overlapping crops, whose features of the overlap are aligned
 * (cosine, against an EMA teacher that sees the unmasked other crop), plus a contrastive term between images.
 */
import { Tape } from "../autograd.ts";
import { UserError } from "../errors.ts";
import { Parameters } from "../nn/parameters.ts";
import { silu } from "../ops/activation.ts";
import { adaptivePool } from "../ops/adaptive_pool.ts";
import { align } from "../ops/align.ts";
import { batchNorm } from "../ops/batchnorm.ts";
import { concat } from "../ops/concat.ts";
import { cosineLoss, rollHalf } from "../ops/cosine.ts";
import { add, scale } from "../ops/elementwise.ts";
import { linear } from "../ops/linear.ts";
import { ntXent } from "../ops/ntxent.ts";
import { ema } from "../ops/optimizer.ts";
import { globalAverage } from "../ops/pool.ts";
import { reconstructionLoss } from "../ops/reconstruction.ts";
import { Grid, type Side, Tensor, volume } from "../tensor.ts";
import { cellOption, drawMask, hiddenVoxels, hide, ratioOption } from "./masking.ts";
import { defineMethod } from "./method.ts";

const LATENT: Side = [16, 16, 16];
const ALIGNED: Side = [7, 7, 7];

/** Linear layers of the given widths, batch norm after each but the last of a predictor, SiLU between. */
function head(p: Parameters, name: string, widths: number[], normLast: boolean): (x: Tensor) => Tensor {
  const layers = widths.slice(1).map((out, i) => ({
    weight: p.add(`${name}.${i}.weight`, [out, widths[i]], (rng) => 0.02 * rng.normal()),
    bias: p.add(`${name}.${i}.bias`, [out], () => 0),
  }));
  return (x) => {
    layers.forEach(({ weight, bias }, i) => {
      const last = i === layers.length - 1;
      x = linear(x, weight, bias);
      if (!last || normLast) x = batchNorm(x);
      if (!last) x = silu(x);
    });
    return x;
  };
}

/** Latents of aligned positions `[n * 343][c]` and of whole images `[n][c]`, c = channels of all levels. */
function latents(pyramid: Tensor[], boxes: Float32Array): { patch: Tensor; image: Tensor } {
  const aligned = pyramid.map((level) => align(adaptivePool(level, LATENT), boxes, ALIGNED));
  return { patch: aligned.reduce(concat), image: pyramid.map(globalAverage).reduce(concat) };
}

/** Loss weights 5, 1, 0.1; teacher momentum 0.995; 16^3 cells, 75 % hidden. */
export const cva = defineMethod({
  name: "cva",
  citation: "Consistent View Alignment, winner of the SSL3D 2025 challenge (LatentCampus)",
  summary: "MAE on two overlapping crops, features of the overlap aligned, contrastive between images",
  views: 2,
  networks: "cnn",
  options: {
    cell: cellOption,
    ratio: ratioOption,
    reconstruction: { default: 5, min: 0, help: "weight of the Huber loss on hidden voxels" },
    alignment: { default: 1, min: 0, help: "weight of the alignment of the overlap" },
    contrastive: { default: 0.1, min: 0, help: "weight of NT-Xent between images" },
    momentum: { default: 0.995, min: 0, max: 1, help: "of the teacher" },
  },
  bind({ batch: images, arch, network, parameters, patch, options }) {
    if (images < 2) {
      throw new UserError(
        `--batch ${images} gives the contrastive term no negatives, so its loss is always zero; use 2 or more`,
      );
    }
    const channels = network.features.reduce((a, b) => a + b, 0);
    const width = arch.headWidth;
    const projectorWidths = [channels, width, width, width];
    const project = head(parameters, "projector", projectorWidths, true);
    const predict = head(parameters, "predictor", [width, width / 4, width], false);

    // The teacher sees no masks, gets no gradient and needs no decoder.
    const copies = new Parameters(parameters.seed);
    const teacher = arch.build(copies, 1, 1, { patch });
    const teacherProject = head(copies, "projector", projectorWidths, true);
    for (const [name, tensor] of copies.tensors) {
      if (!name.startsWith("decoder.")) continue;
      tensor[Symbol.dispose]();
      copies.tensors.delete(name);
    }
    const followed = new Map([...copies.tensors.keys()].map((name) => [name, parameters.tensors.get(name)!]));

    return {
      state: copies.tensors,
      start: () => ema(copies.tensors, followed, 0),
      afterStep: () => ema(copies.tensors, followed, options.momentum),
      loss({ batch, random }) {
        const samples = batch.images.length / volume(patch);
        const layout = { grid: Grid.dense(samples), side: patch };
        const hidden = hiddenVoxels(
          drawMask(random, samples, patch, options.cell, options.ratio),
          samples,
          patch,
          options.cell,
        );
        const image = Tensor.from(batch.images, 1, layout);
        const pyramid = network.encode(Tensor.from(hide(batch.images, hidden), 1, layout));
        const output = network.decode(pyramid);
        const reconstruction = reconstructionLoss(output, image, Tensor.from(hidden, 1, layout), "huber");
        const student = latents(pyramid, batch.overlap);
        const target = Tape.none(() => {
          const other = latents(teacher.encode(image), batch.overlap);
          return {
            patch: rollHalf(teacherProject(other.patch), 343),
            image: rollHalf(teacherProject(other.image), 1),
          };
        });
        const alignment = cosineLoss(predict(project(student.patch)), target.patch);
        const contrastive = ntXent(predict(project(student.image)), target.image);
        const loss = add(
          add(scale(reconstruction, options.reconstruction), scale(alignment, options.alignment)),
          scale(contrastive, options.contrastive),
        );
        return { loss, terms: { reconstruction, alignment, contrastive }, output, hidden };
      },
    };
  },
});
