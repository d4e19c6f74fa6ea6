/** A tiny MedNeXt with each decoder, and its encoder on visible blocks. */
import { mednext } from "../../lib/arch/mednext.ts";
import { gatherBlocks } from "../../lib/ops/densify.ts";
import { Grid } from "../../lib/tensor.ts";
import { likeTorch } from "./network.ts";
import { fixture } from "./sampled.ts";

const goldens = fixture("mednext");
const SIDE = [16, 16, 8] as const;
const DEPTHS = { blocks: [1, 1, 2], ratios: [2, 3, 2] };
const VISIBLE = Uint8Array.of(1, 0, 1, 1, 0, 0, 1, 0);

for (const name of ["light", "standard", "native"]) {
  likeTorch(goldens, name, SIDE, `mednext 4-8-16, ${name} decoder`, (parameters, x) => {
    const arch = mednext("tiny", 4, DEPTHS, name === "native");
    const network = arch.build(parameters, 1, 1, { light: name === "light" });
    return () => [network.decode(network.encode(x))];
  });
}

likeTorch(goldens, "masked", SIDE, "mednext 4-8-16, visible blocks", (parameters, x) => {
  const network = mednext("tiny", 4, DEPTHS).build(parameters, 1, 1);
  return () => network.encode(gatherBlocks(x, new Grid(1, [2, 2, 2], VISIBLE), [8, 8, 4]));
});
