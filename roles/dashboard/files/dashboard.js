"use strict";
// Keeps an open page as fresh as state.json, and says so when it cannot. Text only ever enters as text.
(() => {
  const main = document.getElementById("state");
  const stale = document.getElementById("stale");
  const refreshSeconds = Number(document.body.dataset.refresh);
  const staleSeconds = Number(document.body.dataset.stale);
  let generated = main.dataset.generated;
  let shown = null;
  let failure = "";

  const isSet = (value) => (Array.isArray(value) ? value.length > 0 : Boolean(value));

  function make(id, item) {
    const part = document.getElementById(id).content.cloneNode(true);
    fill(part, typeof item === "object" ? item : { text: item });
    return part;
  }

  function draw(svg, drawn) {
    const set = (selector, attributes) => {
      for (const [name, value] of Object.entries(attributes)) svg.querySelector(selector).setAttribute(name, value);
    };
    set(".range", { x1: drawn.low, x2: drawn.high });
    set(".dot", { cx: drawn.at });
    svg.querySelector(".worse").textContent = drawn.worse_words;
    svg.querySelector(".better").textContent = drawn.better_words;
  }

  function fill(root, data) {
    const each = (name, action) => root.querySelectorAll(`[data-${name}]`).forEach((element) => action(element, element.dataset[name]));
    each("list", (list) => list.replaceChildren());
    each("t", (element, field) => { element.textContent = data[field] ?? ""; });
    each("if", (element, field) => { element.hidden = !isSet(data[field]); });
    each("unless", (element, field) => { element.hidden = isSet(data[field]); });
    each("class", (element, field) => { element.className = `badge ${String(data[field]).toLowerCase()}`; });
    if (data.drawn) draw(root.querySelector("svg"), data.drawn);
    each("list", (list, field) => list.append(...(data[field] ?? []).map((item) => make(list.dataset.item, item))));
  }

  function show(state) {
    fill(main, state);
    const latest = main.querySelector("details");
    if (latest) latest.open = true;
    generated = main.dataset.generated = state.generated_at;
    main.querySelector("time").dateTime = generated;
  }

  function ago(seconds) {
    for (const [size, name] of [[86400, "day"], [3600, "hour"], [60, "minute"]]) {
      const count = Math.floor(seconds / size);
      if (count >= 1) return `${count} ${name}${count === 1 ? "" : "s"} ago`;
    }
    return "just now";
  }

  function tell() {
    const written = Date.parse(generated);
    const age = Math.max(0, (Date.now() - written) / 1000);
    document.getElementById("age").textContent = written ? `(${ago(age)})` : "";
    let words = failure;
    if (!words && written && age > staleSeconds)
      words = `Stale: written ${ago(age)}. What happened on this host since then is not shown.`;
    if (stale.textContent !== words) stale.textContent = words;
    stale.hidden = !words;
  }

  async function refresh() {
    try {
      const answer = await fetch("state.json", { cache: "no-cache", signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
      const text = await answer.text();
      const state = JSON.parse(text);
      if (state.format !== 1) {
        location.reload();
        return;
      }
      if (shown === null ? state.generated_at !== generated : text !== shown) show(state);
      shown = text;
      failure = "";
    } catch (error) {
      if (!failure) {
        const since = new Date().toISOString().slice(11, 16);
        failure = `Stale: this page cannot be refreshed since ${since} UTC (${error.message}). It keeps trying.`;
      }
    }
    tell();
  }

  tell();
  refresh();
  setInterval(() => { if (!document.hidden) refresh(); }, refreshSeconds * 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
})();
