import { layerNorm } from "../../lib/ops/layer_norm.ts";
import { golden } from "./golden.ts";

golden("layerNorm", ({ x, gamma, beta }) => layerNorm(x, gamma, beta));
