import { assert, assertEquals } from "@std/assert";
import * as Plot from "@observablehq/plot";
import { svg } from "../../lib/report/figure.ts";

const points = [{ x: 1, y: 2, m: "MAE" }, { x: 2, y: 1, m: "MAE" }, { x: 1, y: 3, m: "a <b> & c" }, {
  x: 2,
  y: 2,
  m: "a <b> & c",
}];

Deno.test("svg: one standalone element, white ground, same bytes twice", () => {
  const options = {
    title: "t",
    color: { legend: true },
    marks: [
      Plot.line(points, { x: "x", y: "y", stroke: "m" }),
      Plot.text(points, { x: "x", y: "y", text: "m" }),
    ],
  };
  const text = svg(options);
  assert(text.startsWith("<svg") && text.endsWith("</svg>"));
  assert(text.includes('xmlns="http://www.w3.org/2000/svg"'));
  assert(text.includes('fill="white"'));
  assert(text.includes("a &lt;b&gt; &amp; c"));
  assertEquals(text.match(/<path/g)?.length! >= 2, true);
  assertEquals(svg(options), text);
});
