/** The page on a store: how many volumes, and every refused file with its reason. */
import type { IndexLine } from "../data/store.ts";
import { htmlPage, section, table } from "./html.ts";

/** The page of the `lines` of an index. */
export function storeReport(lines: readonly IndexLine[]): string {
  const of = (status: string) => lines.filter((line) => line.status === status);
  const [stored, refused] = [of("stored"), of("refused")];
  const mm = (v: unknown = []) => (v as number[]).map((n) => Number(n.toFixed(3))).join(" x ");
  const recipe = stored.length ? ` by recipe ${stored[0].recipe}` : "";
  return htmlPage(
    "Volume store",
    `${stored.length} volumes stored${recipe}, ${refused.length} files refused.`,
    [
      section(
        "Refused",
        refused.length ? table(["file", "reason"], refused.map((l) => [l.source, l.reason])) : "<p>None.</p>",
      ),
      section(
        "Stored",
        table(
          ["id", "file", "voxels z y x", "source voxels", "source mm"],
          stored.map((l) => [l.id, l.source, mm(l.shape), mm(l.source_shape), mm(l.source_spacing)]),
        ),
      ),
    ],
  );
}
