import { windowAttention } from "../../lib/ops/window_attention.ts";
import { golden } from "./golden.ts";

golden(
  "windowAttention",
  ({ qkv, table }, { tokens, edge, regions }) =>
    windowAttention(qkv, table, tokens, edge, Uint8Array.from([...regions].map(Number))),
);
