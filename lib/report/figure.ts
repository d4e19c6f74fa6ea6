/** Figures: a Plot description in, a standalone SVG text out. No browser, no permissions. */
import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";

/** The part of the DOM that is needed here. */
interface Node {
  tagName: string;
  firstChild: Node | null;
  nextSibling: Node | null;
  setAttribute(name: string, value: string): void;
  querySelector(selector: string): Node | null;
  querySelectorAll(selector: string): Iterable<Node>;
  insertBefore(child: Node, before: Node | null): void;
}

/**
 * Draws `options` (Observable Plot) as a standalone `<svg>` on white, sizes in pixels.
 * Of a plot with a title or a legend outside the `<svg>`, the plot itself is given.
 * @throws Error when the plot holds no `<svg>`.
 */
export function svg(options: Plot.PlotOptions): string {
  const { document } = parseHTML("<html><body></body></html>") as unknown as {
    document: { createElementNS(namespace: string, name: string): Node };
  };
  const plotted = Plot.plot({ ...options, document } as unknown as Plot.PlotOptions) as unknown as Node;
  const element = plotted.tagName.toLowerCase() === "svg"
    ? plotted
    : [...plotted.querySelectorAll("svg")].findLast((e) => e.querySelector("g"));
  if (!element) throw new Error("the plot holds no <svg>");
  element.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of [["width", "100%"], ["height", "100%"], ["fill", "white"]]) {
    ground.setAttribute(name, value);
  }
  const style = element.querySelector("style");
  element.insertBefore(ground, style ? style.nextSibling : element.firstChild);
  return String(element);
}
