"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const charts = read("charts"), config = read("config");
  const root = document.documentElement, button = document.getElementById("theme");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  window.views = {};  // the Vega view of each figure, by its name

  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches;
  const nameButton = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameButton(); });
  prefersDark.addEventListener("change", nameButton);
  nameButton();

  const draw = async (element) => {
    const name = element.dataset.chart;
    const options = { config, actions: false, renderer: "svg", tooltip: { theme: "custom" } };
    window.views[name] = (await vegaEmbed(element, charts[name], options)).view;
    if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;  // so that the keyboard scrolls it
  };
  // what is far below is drawn when it comes near
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      near.unobserve(entry.target);
      draw(entry.target).catch((error) => console.error(entry.target.dataset.chart, error));
    }
  }, { rootMargin: "800px" });
  document.querySelectorAll("[data-chart]").forEach((element) => near.observe(element));
  addEventListener("beforeprint", () => document.querySelectorAll("[data-chart]:empty").forEach(draw));
})();
