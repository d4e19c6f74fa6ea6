/** The adaptation plan that nnU-Net's fine-tuning of nnssl checkpoints reads beside the weights. */
import type { Saved } from "./torch_writer.ts";

/** Classes of the published networks. */
const CLASSES: Record<string, string> = {
  "resenc-l": "ResEncL",
  "primus-s": "PrimusS",
  "primus-b": "PrimusB",
  "primus-m": "PrimusM",
  "primus-l": "PrimusL",
};

/** The plan of a network of `inputs` channels trained on `patch` at 1 mm; undefined for networks that the consumer cannot build. */
export function adaptationPlan(
  arch: string,
  inputs: number,
  patch: number[],
): Map<string, Saved> | undefined {
  if (!Object.hasOwn(CLASSES, arch)) return undefined;
  const tokens = arch.startsWith("primus");
  const dict = (entries: Record<string, Saved>) => new Map(Object.entries(entries));
  const configuration = dict({
    spacing_style: "onemmiso",
    spacing: [1, 1, 1],
    normalization_schemes: ["ZScoreNormalization"],
    use_mask_for_norm: [false],
    patch_size: patch,
  });
  return dict({
    architecture_plans: dict({
      arch_class_name: CLASSES[arch],
      arch_kwargs: null,
      arch_kwargs_requiring_import: null,
    }),
    pretrain_plan: dict({
      dataset_name: "voxalign",
      plans_name: "voxalign",
      transpose_forward: [0, 1, 2],
      transpose_backward: [0, 1, 2],
      configurations: dict({ onemmiso: configuration }),
    }),
    pretrain_num_input_channels: inputs,
    recommended_downstream_patchsize: patch,
    key_to_encoder: tokens ? "eva" : "encoder.stages",
    key_to_stem: tokens ? "down_projection" : "encoder.stem",
    keys_to_in_proj: tokens
      ? ["down_projection.proj"]
      : ["encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"],
    key_to_lpe: tokens ? "eva.pos_embed" : null,
  });
}
