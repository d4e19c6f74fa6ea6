import { leakyRelu, silu, swiglu } from "../../lib/ops/activation.ts";
import { golden } from "./golden.ts";

golden("leakyRelu", ({ x }, { slope }) => leakyRelu(x, slope));
golden("silu", ({ x }) => silu(x));
golden("swiglu", ({ gate, value }) => swiglu(gate, value));
