/**
 * Labelled volumes that look like a skull-stripped brain, so that everything runs with no download: a folded cortex
 * around white matter, ventricles (label 1) and deep grey nuclei (label 2), a bias field and noise.
 */
import { Rng } from "../rng.ts";

/** One case on a cubic 1 mm grid. */
export interface Phantom {
  shape: [number, number, number];
  /** One volume [z, y, x] per channel; 0 outside the brain, about 100 to 1100 inside. */
  images: Uint16Array[];
  /** [z, y, x]: 0 background, 1 ventricles, 2 deep grey nuclei. */
  label: Uint8Array;
  /** Whether the ventricles are enlarged: the class of the case for image-level tasks. */
  enlarged: boolean;
}

/** Names of the first channels; further ones are `C4`, `C5`, ... */
export const CHANNELS = ["T1", "T2", "FLAIR", "PD"];
/** Intensities of fluid, grey matter, white matter and deep grey, per channel. */
const CONTRASTS = [[.15, .55, .9, .65], [1, .6, .35, .5], [.1, .75, .55, .68], [.95, .8, .6, .72]];

/** Soft membership: 1 where `distance` (in units of the half side) is well inside, 0 well outside. */
const soft = (distance: number, width: number) => Math.min(1, Math.max(0, .5 + distance / width));

interface Ellipsoid {
  centre: number[];
  axes: number[];
}

/** 1 minus the scaled radius of (z, y, x) in an ellipsoid: positive inside, in units of its mean semi-axis. */
function depth(e: Ellipsoid, z: number, y: number, x: number): number {
  const r = Math.hypot(
    (z - e.centre[0]) / e.axes[0],
    (y - e.centre[1]) / e.axes[1],
    (x - e.centre[2]) / e.axes[2],
  );
  return (1 - r) * (e.axes[0] + e.axes[1] + e.axes[2]) / 3;
}

/** A rotation (row-major 3x3) by small angles about the three axes. */
function rotation(a: number, b: number, c: number): number[] {
  const [sa, ca, sb, cb, sc, cc] = [
    Math.sin(a),
    Math.cos(a),
    Math.sin(b),
    Math.cos(b),
    Math.sin(c),
    Math.cos(c),
  ];
  return [
    cb * cc,
    sa * sb * cc - ca * sc,
    ca * sb * cc + sa * sc,
    cb * sc,
    sa * sb * sc + ca * cc,
    ca * sb * sc - sa * cc,
    -sb,
    sa * cb,
    ca * cb,
  ];
}

/** Case `index` of the set of `seed`: a pure function of its arguments, `size` voxels per axis. */
export function phantom(seed: number, index: number, size: number, channels: number): Phantom {
  const rng = new Rng(seed, "phantom", index);
  const around = (centre: number, spread: number) => rng.uniform(centre - spread, centre + spread);
  const turn = rotation(around(0, .15), around(0, .15), around(0, .15));
  const shift = [around(0, .04), around(0, .04), around(0, .04)];
  const brain = [around(.72, .06), around(.86, .05), around(.68, .05)];
  const enlarged = rng.uniform() < .5;
  const grow = enlarged ? around(1.3, .1) : around(1, .1);
  const ribbon = around(.11, .02);
  const folds = Array.from({ length: 6 }, (_, i) => ({
    k: [rng.normal(), rng.normal(), rng.normal()].map((v) => v * (i < 3 ? 3 : 9)),
    phase: rng.uniform(0, 2 * Math.PI),
    height: (i < 3 ? .03 : .022) * around(1, .3),
  }));
  const pair = (centre: number[], axes: number[], scale: number): Ellipsoid[] => {
    const c = centre.map((v) => around(v, .02));
    const a = axes.map((v) => v * scale * around(1, .12));
    return [-1, 1].map((side) => ({
      centre: [c[0], c[1], side * c[2]],
      axes: a.map((v) => v * around(1, .06)),
    }));
  };
  const ventricles = [
    ...pair([.1, .06, .11], [.11, .3, .075], grow),
    ...pair([.02, -.22, .19], [.1, .13, .07], grow),
    { centre: [-.1, .02, 0], axes: [.13, .13, .035 * grow] },
  ];
  const nuclei = [
    ...pair([-.06, -.08, .19], [.14, .17, .12], 1),
    ...pair([-.02, .18, .28], [.15, .22, .09], 1),
  ];
  const bias = Array.from({ length: channels }, () => [0, 1, 2, 3, 4, 5].map(() => around(0, .1)));
  const noise = around(.04, .015);
  const contrast = Array.from(
    { length: channels },
    (_, c) =>
      CONTRASTS[c % CONTRASTS.length].map((v) => Math.max(.1, v + around(0, .04 + .1 * Math.floor(c / 4)))),
  );

  const shape: Phantom["shape"] = [size, size, size];
  const images = contrast.map(() => new Uint16Array(size ** 3));
  const label = new Uint8Array(size ** 3);
  const blur = 3 / size; // partial volume over about 1.5 voxels
  for (let i = 0, at = 0; i < size; i++) {
    for (let j = 0; j < size; j++) {
      for (let k = 0; k < size; k++, at++) {
        const p = [i, j, k].map((v, d) => (v + .5) / size * 2 - 1 - shift[d]);
        const z = turn[0] * p[0] + turn[1] * p[1] + turn[2] * p[2];
        const y = turn[3] * p[0] + turn[4] * p[1] + turn[5] * p[2];
        const x = turn[6] * p[0] + turn[7] * p[1] + turn[8] * p[2];
        const r = Math.hypot(z / brain[0], y / brain[1], x / brain[2]);
        if (r > 1.2) continue;
        let surface = 1;
        let fold = 0;
        folds.forEach(({ k: [kz, ky, kx], phase, height }, f) => {
          const wave = height * Math.sin(kz * z + ky * y + kx * x + phase);
          if (f < 3) surface += wave;
          else fold += wave;
        });
        const inside = (surface - r) * .75; // about the depth below the surface
        if (inside <= 0) continue;
        const white = soft(inside - ribbon + 1.5 * fold, blur);
        const fluid = Math.max(...ventricles.map((e) => soft(depth(e, z, y, x), blur)));
        const deep = Math.max(...nuclei.map((e) => soft(depth(e, z, y, x), blur))) * (1 - fluid);
        label[at] = fluid > .5 ? 1 : deep > .5 ? 2 : 0;
        for (let c = 0; c < channels; c++) {
          const [csf, grey, matter, nucleus] = contrast[c];
          const tissue = grey + (matter - grey) * white;
          const value = fluid * csf + (1 - fluid) * (tissue + (nucleus - tissue) * deep);
          const b = bias[c];
          const field = b[0] * z + b[1] * y + b[2] * x + b[3] * z * y + b[4] * y * x + b[5] * z * x;
          images[c][at] = Math.max(1, Math.round(1000 * (value * Math.exp(field) + noise * rng.normal())));
        }
      }
    }
  }
  return { shape, images, label, enlarged };
}
