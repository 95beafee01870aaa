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

  let source = null;
  let seen = null;

  const follow = () => {
    const address = new URL(region.dataset.live, location);
    if (seen) address.searchParams.set("seen", seen);
    source = new EventSource(address);
    source.onopen = () => { state.textContent = "This page is live."; };
    source.onmessage = (event) => { seen = event.lastEventId; news = event.data; show(); };
    source.onerror = () => {
      state.textContent = source.readyState === EventSource.CLOSED
        ? "This page is no longer live: load it again."
        : "The connection is lost; trying again.";
    };
  };

  // A page that nobody sees asks for nothing: browsers keep six connections to a site, for all its pages.
  const look = () => {
    if (source) source.close();
    if (document.hidden) state.textContent = "This page waits until it is seen.";
    else follow();
  };

  look();
  document.addEventListener("visibilitychange", look);
  document.addEventListener("focusout", () => setTimeout(show));
  document.addEventListener("selectionchange", show);
  window.addEventListener("pagehide", () => { if (source) source.close(); });
})();
