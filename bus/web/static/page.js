"use strict";
// Keeps the live part of a page up to date: the server sends it again whenever it has changed, already escaped.
// What a person chose, opened or writes stays.
(() => {
  const region = document.querySelector("[data-live]");
  const state = document.querySelector("[data-state]");
  if (!region || !window.EventSource) return;
  let news = null;

  const isInUse = () => {
    const focused = document.activeElement;
    const selection = document.getSelection();
    return (region.contains(focused) && focused.matches("input:not([type=checkbox]), textarea, select"))
      || (selection && !selection.isCollapsed && region.contains(selection.anchorNode));
  };

  const show = () => {
    if (news === null || isInUse()) return;
    const focused = region.contains(document.activeElement) ? document.activeElement.id : "";
    const kept = (selector) => [...region.querySelectorAll(selector)].map((each) => each.id).filter(Boolean);
    const checked = kept("input:checked");
    const opened = kept("details[open]");
    const texts = [...region.querySelectorAll("input[type=text][id]")].map((each) => [each.id, each.value]);
    region.innerHTML = news;
    news = null;
    const found = (id) => document.getElementById(id);
    for (const id of checked) if (found(id)) found(id).checked = true;
    for (const id of opened) if (found(id)) found(id).open = true;
    for (const [id, value] of texts) if (found(id)) found(id).value = value;
    if (focused && found(focused)) found(focused).focus({preventScroll: true});
  };

  const source = new EventSource(region.dataset.live);
  source.onopen = () => { state.textContent = "This page is live."; };
  source.onmessage = (event) => { news = event.data; show(); };
  source.onerror = () => {
    state.textContent = source.readyState === EventSource.CLOSED
      ? "This page is no longer live: load it again."
      : "The connection is lost; trying again.";
  };
  document.addEventListener("focusout", () => setTimeout(show));
  document.addEventListener("selectionchange", show);
  window.addEventListener("pagehide", () => source.close());
})();
