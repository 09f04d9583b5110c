"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const charts = read("charts"), config = read("config");
  const root = document.documentElement, button = document.getElementById("theme");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const views = window.views = {};  // the Vega view of each figure, by its name

  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches;
  const nameButton = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameButton(); });
  prefersDark.addEventListener("change", nameButton);
  nameButton();

  // A control with data-signal="NAME" sets the parameter NAME of every figure that has it.
  const controls = [...document.querySelectorAll("[data-signal]")];
  const has = (name, signal) => (charts[name].params || []).some((parameter) => parameter.name === signal);
  const pass = (control, name) => {
    if (name in views && has(name, control.dataset.signal)) {
      views[name].signal(control.dataset.signal, Number(control.value)).runAsync();
    }
  };
  const say = (control) => {
    const output = control.parentElement.querySelector("output");
    const value = Number(control.value);
    if (output) output.value = control.getAttribute("aria-valuetext") || value;
  };
  for (const control of controls) {
    const change = () => {
      if (control.dataset.signal === "smoothing") {
        const value = Number(control.value);
        control.setAttribute("aria-valuetext", value ? `means over ${value} % of the run` : "off");
      }
      say(control);
      Object.keys(views).forEach((name) => pass(control, name));
    };
    control.addEventListener("input", change);
    change();
  }

  const begun = new Set();
  const draw = async (element) => {
    const name = element.dataset.chart;
    if (begun.has(name)) return;
    begun.add(name);
    try {
      const options = { config, actions: false, renderer: "svg", tooltip: { theme: "custom" } };
      views[name] = (await vegaEmbed(element, charts[name], options)).view;
      controls.forEach((control) => pass(control, name));
      if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;  // so that the keyboard scrolls it
    } catch (error) {
      console.error(name, error);
    }
  };
  // What is far below is drawn when it comes near,
  const places = [...document.querySelectorAll("[data-chart]")];
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      near.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "800px" });
  places.forEach((element) => near.observe(element));
  // or when there is nothing else to do, so that it is there when the page is printed; what is folded has no width yet.
  const idle = () => new Promise((resolve) => (window.requestIdleCallback || setTimeout)(resolve));
  addEventListener("load", () => setTimeout(async () => {
    for (const element of places) {
      await idle();
      if (element.offsetWidth > 0) await draw(element);
    }
  }, 1000));
})();
