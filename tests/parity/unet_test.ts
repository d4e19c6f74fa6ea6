/** A tiny U-Net of AMAES with each decoder, on an anisotropic patch whose deepest level is one voxel thin. */
import { unet } from "../../lib/arch/unet.ts";
import { likeTorch } from "./network.ts";
import { fixture } from "./sampled.ts";

for (const name of ["light", "standard"]) {
  likeTorch(
    fixture("unet"),
    name,
    [32, 48, 16],
    `unet 2-4-8-16-32, ${name} decoder`,
    (parameters, x) => {
      const network = unet("tiny", 2).build(parameters, 1, 2, { light: name === "light" });
      return () => [network.decode(network.encode(x))];
    },
    5e-5, // PyTorch itself is off by up to 9.6e-5 in f32
  );
}
