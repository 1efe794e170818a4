/** The pack's texts in the language of the editor: locales/<language>/main.json, as ComfyUI serves them. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

let languages = {};

export async function loadTexts() {
  languages = await api.getCustomNodesI18n();
}

export const locale = () => app.extensionManager.setting.get("Comfy.Locale") ?? "en";

const find = (language, path) =>
  path.split(".").reduce((texts, key) => texts?.[key], languages[language]?.runcomfyKling);

/** The text under `path`, its `{name}` places filled from `values`. English where a language lacks it. */
export function t(path, values = {}) {
  const language = locale();
  const text = find(language, path) ?? find(language.split("-")[0], path) ?? find("en", path) ?? path;
  return text.replace(/\{(\w+)\}/g, (place, name) => values[name] ?? place);
}

export const dollars = (usd) => new Intl.NumberFormat(locale(), { style: "currency", currency: "USD" }).format(usd);
