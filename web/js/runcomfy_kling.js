/** The pack's extension: what ComfyUI calls, and nothing else. */

import { app } from "../../../scripts/app.js";
import { el } from "./dom.js";
import { addStoryboardEditor } from "./storyboard.js";
import { loadTexts } from "./text.js";

const GENERATIONS = new Set(["RunComfyKlingTextToVideo", "RunComfyKlingImageToVideo", "RunComfyKlingFetchVideo"]);
const LINK_COLOURS = { KLING_STORYBOARD: "#4db6ac", KLING_ELEMENTS: "#f48fb1" };

function colourLinks() {
  for (const [type, colour] of Object.entries(LINK_COLOURS)) {
    app.canvas.default_connection_color_byType[type] = colour;
    app.canvas.constructor.link_type_colors[type] = colour;
    document.documentElement.style.setProperty(`--color-datatype-${type}`, colour);
  }
}

function keepVariation(node) {
  // ComfyUI starts control after generate at randomize, which would buy a new take with every run.
  const control = node.widgets?.find(({ name }) => name === "variation")?.linkedWidgets?.[0];
  if (control) control.value = "fixed";
}

app.registerExtension({
  name: "RunComfy.Kling",
  async init() {
    document.head.append(el("link", { rel: "stylesheet", href: new URL("../css/runcomfy_kling.css", import.meta.url) }));
    await loadTexts();
  },
  setup() {
    colourLinks();
  },
  nodeCreated(node) {
    if (node.comfyClass === "RunComfyKlingStoryboard") addStoryboardEditor(node);
    if (!GENERATIONS.has(node.comfyClass)) return;
    // Nodes 2.0 of early frontends otherwise takes the clip for a picture.
    node.previewMediaType = "video";
    keepVariation(node);
  },
});
