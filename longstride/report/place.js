'use strict';
// Where the reader is: what is open, what has the focus, how far the page is scrolled. Kept over a reload, since a watched
// page loads itself again. Charts, runs and samples may have come in between, so places go by name and not by number.
const place = (() => {
  const kKey = 'place ' + location.pathname;
  const kFocus = 'a[href], input, select, button, summary, audio, [tabindex]', kAnchors = 'h1, h2, h3, summary, figcaption';
  const kSelected = 30;  // seconds that selected text holds a reload back

  function nameOf(element) {
    const figure = element.closest('figure'), about = figure ? figure.querySelector('figcaption').textContent : '';
    const own = element.id || element.dataset.run || element.getAttribute('href') || element.getAttribute('aria-label');
    return [element.tagName, about, own || (element.name || '') + (element.value || '') + element.textContent.slice(0, 200)].join('|');
  }
  // All elements by name; of several with one name each has its number.
  function named(selector) {
    const found = new Map();
    for (const element of document.querySelectorAll(selector)) {
      let name = nameOf(element);
      for (let number = 2; found.has(name); ++number) name = `${nameOf(element)}|${number}`;
      found.set(name, element);
    }
    return found;
  }
  const nameIn = (found, wanted) => ([...found].find(([, element]) => element === wanted) || [null])[0];

  let kept = null;
  try {
    kept = JSON.parse(sessionStorage.getItem(kKey) || 'null');
    sessionStorage.removeItem(kKey);
  } catch (error) { /* some browsers keep nothing for pages from files */ }

  function keep(charts) {
    const focused = document.activeElement, chart = charts.find((c) => c.svg === focused);
    const open = named('summary'), anchors = named(kAnchors), boxes = named('pre');
    const anchor = [...anchors].find(([, element]) => element.getBoundingClientRect().top >= 0);
    const now = {
      open: [...open].filter(([, summary]) => summary.parentElement.open).map(([name]) => name),
      y: scrollY, anchor: anchor ? [anchor[0], anchor[1].getBoundingClientRect().top] : null,
      inner: [...boxes].filter(([, box]) => box.scrollTop > 0).map(([name, box]) => [name, box.scrollTop]),
      focus: focused === document.body ? null : nameIn(named(kFocus), focused), ring: focused.matches(':focus-visible'),
      at: chart ? chart.at : null, read: chart !== undefined && !chart.tip.hidden,
    };
    try { sessionStorage.setItem(kKey, JSON.stringify(now)); } catch (error) { /* as above */ }
  }
  // Before the charts are drawn: what is open has its height then.
  function open() {
    if (kept === null) return;
    const summaries = named('summary');
    for (const name of kept.open) if (summaries.has(name)) summaries.get(name).parentElement.open = true;
  }
  // And afterwards.
  function back(charts) {
    if (kept === null) return;
    history.scrollRestoration = 'manual';
    const boxes = named('pre'), anchors = named(kAnchors), focused = kept.focus === null ? null : named(kFocus).get(kept.focus);
    for (const [name, top] of kept.inner) if (boxes.has(name)) boxes.get(name).scrollTop = top;
    const anchor = kept.y > 0 && kept.anchor ? anchors.get(kept.anchor[0]) : null;
    window.scrollTo(0, anchor ? scrollY + anchor.getBoundingClientRect().top - kept.anchor[1] : kept.y);
    if (!focused) return;
    const chart = charts.find((c) => c.svg === focused);
    if (chart) chart.at = kept.at;
    focused.focus({ preventScroll: true, focusVisible: kept.ring });
    if (chart && kept.read) chart.read(kept.at, true);
  }

  // Calls `load` every `seconds` as soon as nobody is in the middle of something.
  function watch(seconds, paused, load) {
    const begun = performance.now();
    let touched = -Infinity, pressed = false;
    const touch = (event) => {
      touched = performance.now();
      if (event.type === 'pointerdown') pressed = true;
      if (event.type === 'pointerup' || event.type === 'pointercancel') pressed = false;
    };
    for (const type of ['pointerdown', 'pointerup', 'pointercancel', 'keydown', 'wheel', 'touchmove'])
      addEventListener(type, touch, { capture: true, passive: true });
    const selects = () => !getSelection().isCollapsed && performance.now() - touched < 1000 * kSelected;
    const chooses = () => document.activeElement.tagName === 'SELECT' && performance.now() - touched < 5000;
    const listens = () => [...document.querySelectorAll('audio')].some((sound) => !sound.paused);
    setInterval(() => {
      if (performance.now() - begun < 1000 * seconds || paused() || document.hidden) return;
      if (pressed || performance.now() - touched < 800 || selects() || chooses() || listens()) return;
      load();
    }, 200);
  }
  return { keep, open, back, watch };
})();
