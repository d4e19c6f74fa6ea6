/** Cuts views out of volumes through the native library. */
import { native } from "../native/library.ts";
import { sideOf, type Triple, type View } from "./views.ts";

/** A smooth random deformation: noise of `seed`, a Gaussian of `sigma` voxels, times `alpha` (lib/data/amaes.ts). */
export interface Elastic {
  sigma: number;
  alpha: number;
  seed: number;
}

/**
 * The voxels of a view, written to `out` [z, y, x]. Crops and flips are copied; turned and scaled views are interpolated by
 * cubic B-splines (`order` 3) or linearly (1), with 0 outside (scipy.ndimage.affine_transform, mode "constant").
 * @param o `least`: the volume's least value outside; `elastic`: deforms the view first
 */
export async function sampleView(
  volume: Float32Array,
  [z, y, x]: Triple,
  view: View,
  out: Float32Array = new Float32Array(sideOf(view).reduce((a, b) => a * b)),
  order: 1 | 3 = 3,
  o: { least?: boolean; elastic?: Elastic } = {},
): Promise<Float32Array> {
  const affine = Float64Array.from(view.affine.flat());
  const { least = false, elastic = { sigma: 0, alpha: 0, seed: 0 } } = o;
  const [pz, py, px] = sideOf(view);
  await native().vx_sample_view_wait(
    volume,
    volume.length,
    z,
    y,
    x,
    affine,
    affine.length,
    order,
    least,
    elastic.sigma,
    elastic.alpha,
    elastic.seed,
    pz,
    py,
    px,
    out,
    out.length,
  );
  return out;
}
