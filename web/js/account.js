/** Settings → RunComfy Kling: enter, test and clear the account's token. It is never read back. */

import { el, setText } from "./dom.js";
import { call } from "./server.js";
import { t } from "./text.js";

/** ComfyUI builds the element anew whenever its settings open. */
function accountForm() {
  const token = el("input.rck-input", {
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: t("account.placeholder"),
    "aria-label": t("account.token"),
  });
  const inForce = el("p.rck-in-force");
  const answer = el("p.rck-answer", { role: "status" });
  const warning = el("p.rck-problem");
  const links = el("span.rck-links");
  const button = (label, onclick) => el("button.rck-button", { type: "button", onclick }, t(label));
  const clear = button("account.clear", () => act("DELETE", "", "account.cleared"));

  const show = ({ source, hosted_machine: hosted, profile_url: profile, generations_url: generations }) => {
    setText(inForce, t(`account.source.${source === "settings" ? "settings" : source ? "environment" : "none"}`, { source }));
    setText(warning, hosted && source === "settings" ? t("account.hosted") : "");
    clear.hidden = source !== "settings";
    links.replaceChildren(link(profile, t("account.profile")), link(generations, t("account.generations")));
  };
  const say = (text, tone) => {
    setText(answer, text);
    answer.dataset.tone = tone;
  };
  const tried = async (work) => {
    say("", "");
    try {
      await work();
    } catch (error) {
      say(error.message, "failed");
    }
  };
  const act = (method, path, done, body) =>
    tried(async () => {
      show(await call(`/account${path}`, method, body));
      say(t(done), "saved");
    });
  const save = (event) => {
    event.preventDefault();
    const { value } = token;
    if (!value.trim()) return token.focus();
    token.value = "";
    return act("PUT", "", "account.saved", { token: value.trim() });
  };
  const test = () =>
    tried(async () => {
      const { ok, message } = await call("/account/test", "POST");
      say(ok ? t("account.accepted") : message, ok ? "saved" : "failed");
    });

  const form = el(
    "form.rck.rck-account",
    { onsubmit: save },
    inForce,
    el("div.rck-row", {}, token, el("button.rck-button", { type: "submit" }, t("account.save"))),
    el("div.rck-row", {}, button("account.test", test), clear, links),
    answer,
    warning,
  );
  tried(async () => show(await call("/account")));
  return form;
}

const link = (href, text) => el("a", { href, target: "_blank", rel: "noopener noreferrer" }, text);

export const accountSetting = {
  id: "RunComfyKling.Account",
  category: ["RunComfy Kling", "RunComfy account", "Token"],
  name: "RunComfy token",
  type: accountForm,
  defaultValue: null,
};
