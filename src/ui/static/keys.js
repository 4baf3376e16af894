// Keys for the web inbox. Pages work without this file; what is here only moves the focus or follows a link.
(() => {
  "use strict";

  const typing = (element) => element.closest("input, textarea, select, [contenteditable]") !== null;

  const reveal = (link) => {
    const panel = link.dataset.open && document.getElementById(link.dataset.open);
    if (panel) panel.open = true;
    const field = link.dataset.focus && document.querySelector(link.dataset.focus);
    if (field) {
      field.focus();
      field.scrollIntoView({ block: "center" });
    }
    return Boolean(field);
  };

  const step = (by) => {
    const items = [...document.querySelectorAll("[data-item]")];
    if (items.length === 0) return;
    const at = items.indexOf(document.activeElement);
    const next = at < 0 ? (by > 0 ? 0 : items.length - 1) : Math.min(Math.max(at + by, 0), items.length - 1);
    items[next].focus();
  };

  const press = (key) => {
    const target = document.querySelector(`[data-key="${key}"]`);
    if (!target) return false;
    if (target.matches("summary")) {
      const panel = target.parentElement;
      panel.open = true;
      const field = panel.querySelector("textarea, input:not([type=hidden]), select, button");
      (field || target).focus();
    } else if (target.matches("button")) {
      target.focus(); // Enter decides, not a single key
    } else if (!(target.dataset.focus && reveal(target))) {
      target.click();
    }
    return true;
  };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey) return;
    const target = event.target instanceof Element ? event.target : document.body;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      const form = target.closest("form");
      const button = form && form.querySelector("button[name=do]");
      if (button) {
        event.preventDefault();
        form.requestSubmit(button);
      }
      return;
    }
    if (event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape" && typing(target)) {
      target.blur();
      return;
    }
    if (typing(target)) return;
    if (event.key === "j" || event.key === "k") {
      step(event.key === "j" ? 1 : -1);
      event.preventDefault();
    } else if (/^[a-z]$/.test(event.key) && press(event.key)) {
      event.preventDefault();
    }
  });

  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element && event.target.closest("a[data-focus]");
    if (link && reveal(link)) event.preventDefault();
  });
})();
