/** A tiny SwinUNETR whose volumes need padding, shifted windows and windows cut short. */
import { swinunetr } from "../../lib/arch/swinunetr.ts";
import { likeTorch } from "./network.ts";
import { fixture } from "./sampled.ts";

// Against the f64 gradients of the fixture PyTorch itself is off by 2.9e-5 in f32.
likeTorch(fixture("swinunetr"), "dense", [16, 24, 8], "swinunetr 4-8-16", (parameters, x) => {
  const network = swinunetr("tiny", { width: 4, heads: [1, 2], edge: 3 }).build(parameters, 1, 1);
  return () => [network.decode(network.encode(x))];
}, 5e-5);
