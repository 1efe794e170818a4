/** The pack's extension: what ComfyUI calls, and nothing else. */

import { app } from "../../../scripts/app.js";
import { accountSetting } from "./account.js";
import { el } from "./dom.js";
import { generationsTab } from "./generations.js";
import { addLivePanel, catchUp, showAll, watch } from "./live.js";
import { addStoryboardEditor } from "./storyboard.js";
import { loadTexts } from "./text.js";

const GENERATIONS = new Set(["RunComfyKlingTextToVideo", "RunComfyKlingImageToVideo", "RunComfyKlingFetchVideo"]);
// Nodes 2.0 takes the same colours from css/runcomfy_kling.css.
const LINK_COLOURS = { KLING_STORYBOARD: "#4db6ac", KLING_ELEMENTS: "#f48fb1" };

function colourLinks() {
  for (const colours of [app.canvas.default_connection_color_byType, app.canvas.constructor.link_type_colors]) {
    for (const [type, ours] of Object.entries(LINK_COLOURS)) {
      let palette = "";
      // Loading a palette writes an empty colour for every type it does not know.
      Object.defineProperty(colours, type, {
        enumerable: true,
        get: () => palette || ours,
        set: (colour) => (palette = colour),
      });
    }
  }
}

function keepVariation(node) {
  // ComfyUI starts control after generate at randomize, which would buy a new take with every run.
  const control = node.widgets?.find(({ name }) => name === "variation")?.linkedWidgets?.[0];
  if (control) control.value = "fixed";
}

app.registerExtension({
  name: "RunComfy.Kling",
  settings: [accountSetting],
  async init() {
    watch();
    document.head.append(el("link", { rel: "stylesheet", href: new URL("../css/runcomfy_kling.css", import.meta.url) }));
    await loadTexts();
  },
  async setup() {
    colourLinks();
    app.extensionManager.registerSidebarTab(generationsTab());
    await catchUp();
  },
  nodeCreated(node) {
    if (node.comfyClass === "RunComfyKlingStoryboard") addStoryboardEditor(node);
    if (!GENERATIONS.has(node.comfyClass)) return;
    // Nodes 2.0 of early frontends otherwise takes the clip for a picture.
    node.previewMediaType = "video";
    keepVariation(node);
    addLivePanel(node);
  },
  afterConfigureGraph() {
    showAll();
  },
});
