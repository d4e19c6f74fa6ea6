import { leakyRelu, silu } from "../../lib/ops/activation.ts";
import { golden } from "./golden.ts";

golden("leakyRelu", ({ x }, { slope }) => leakyRelu(x, slope));
golden("silu", ({ x }) => silu(x));
