// closedloop site tag: tells the collector what visitors of a page do, and shows there what the recommender offers.
//
//   <script src="https://COLLECTOR/closedloop.js" data-key="pk_…"></script>
//
// data-recommender, data-feedback: where these services are, if not at the origin the tag came from: an origin, or
// a port of the same host (":8003").
// No cookie, ever; nothing is stored on the device before closedloop.consent(), and nothing under Global Privacy Control.
(() => {
  "use strict";
  const script = document.currentScript;
  const early = window.closedloop;
  if (!script || (early && early.track)) return;
  const key = script.dataset.key;
  const tag = new URL(script.src);
  const origin = (given = tag.origin) => new URL(given[0] === ":" ? `//${tag.hostname}${given}` : given, tag).origin;
  const recommender = origin(script.dataset.recommender);
  const paths = {
    touchpoints: `${tag.origin}/v1/touchpoints`,
    consents: `${tag.origin}/v1/consents`,
    outcomes: `${origin(script.dataset.feedback)}/v1/outcomes`,
  };
  const bearer = { "Authorization": `Bearer ${key}`, "Content-Type": "application/json" };
  const warn = (...words) => console.warn("closedloop:", ...words);

  // Who is there. `stored` is all that is kept on the device, once that is allowed:
  // {id, as: the customer whose it is, told: the one the platform was told of, said: the last consent,
  // left: what could not be sent}.
  const STORE = "closedloop";
  const gpc = navigator.globalPrivacyControl === true;
  const random = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0")).join("");
  const load = () => {
    try { return JSON.parse(localStorage.getItem(STORE)); } catch { return null; }
  };
  const store = (value) => {
    try {
      if (value) localStorage.setItem(STORE, JSON.stringify(value));
      else localStorage.removeItem(STORE);
    } catch { /* storage is full, or forbidden in this browser: then all is as before consent */ }
  };
  if (gpc && load()) store(null);
  let stored = load();
  let visitor = stored ? stored.id : random();
  let linked = stored ? stored.as : undefined;
  let told = stored ? stored.told : undefined;
  // Whether the platform may hold something of this visitor that is not the customer's yet.
  let used = !!stored;
  let customer = {};
  const who = () => {
    used = used || !customer.customer_id;
    return { anonymous_id: visitor, ...customer };
  };
  const keep = (more) => {
    stored = load() && { ...load(), id: visitor, as: linked, told, ...more };
    if (stored) store(stored);
  };

  // What waits to be sent, in order. Each item has an id: sent twice, it counts once.
  let waiting = [];
  let flying = [];
  let sending = null;
  let timer = 0;
  let pause = 1000;
  let position;
  const soon = (delay) => {
    clearTimeout(timer);
    timer = setTimeout(flush, delay);
  };
  const post = (to, item) => {
    waiting = [...waiting, { to, item, at: Date.now() }].slice(-200);
    soon(250);
  };
  const sent = (batch) => { waiting = waiting.filter((entry) => !batch.includes(entry)); };
  // One batch goes to one place and speaks for one person, so that a wrong signature costs nobody else's.
  const next = (entries) => {
    const alike = ({ to, item }) => to === entries[0].to && item.customer_id === entries[0].item.customer_id;
    const end = entries.findIndex((entry) => !alike(entry));
    return entries.slice(0, Math.min(20, end < 0 ? 20 : end));
  };
  const bodyOf = (batch) => {
    // The server's clock is right; the visitor's counts only for what had to wait.
    const items = batch.map(({ item, at }) =>
      Date.now() - at > 3000 ? { ...item, occurred_at: new Date(at).toISOString() } : item);
    const { to } = batch[0];
    const write = to === "touchpoints" ? { write_key: key } : {};
    return JSON.stringify(items.length > 1 ? { ...write, [to]: items } : { ...write, ...items[0] });
  };
  const send = (batch) => {
    const { to } = batch[0];
    const body = bodyOf(batch);
    // text/plain needs no preflight; keepalive lets it outlive the page, where it is small enough.
    const headers = to === "consents" ? bearer : { "Content-Type": "text/plain" };
    return fetch(paths[to], { method: "POST", headers, body, credentials: "omit", keepalive: body.length < 60000 });
  };
  const drain = async () => {
    while (waiting.length) {
      flying = next(waiting);
      const answer = await send(flying).catch(() => null);
      if (!answer || answer.status >= 500 || [408, 429].includes(answer.status)) {
        flying = [];
        soon(Math.max(pause, 1000 * ((answer && answer.headers.get("Retry-After")) || 0)));
        pause = Math.min(2 * pause, 60000);
        return;
      }
      const told = await answer.json().catch(() => ({}));
      if (!answer.ok) warn(told.code, told.detail);
      else if (flying[0].to === "touchpoints") position = told.position;
      sent(flying);
      flying = [];
      pause = 1000;
    }
  };
  const flush = () => (sending = sending || drain().finally(() => { sending = null; }));
  const leave = () => {
    let left = waiting.filter((entry) => !flying.includes(entry));
    if (!navigator.onLine) {
      // A beacon would be taken and lost. With consent it waits on the device for the next visit.
      const kept = load();
      if (kept) {
        store({ ...kept, left: [...(kept.left || []), ...waiting].slice(-200) });
        waiting = [];
      }
      return;
    }
    while (left.length) {
      const batch = next(left);
      left = left.slice(batch.length);
      if (batch[0].to === "consents") send(batch).catch(() => {});
      else if (!navigator.sendBeacon(paths[batch[0].to], bodyOf(batch))) continue;
      sent(batch);
    }
  };
  const resume = () => {
    const kept = load();
    if (kept && kept.left) {
      waiting = [...kept.left, ...waiting];
      store({ ...kept, left: undefined });
    }
    if (waiting.length) soon(250);
  };

  const track = (type, properties = {}) => post("touchpoints", {
    id: random(), type, channel: "web", ...who(), properties, context: gpc ? { gpc } : undefined,
  });
  // Addresses go without query and fragment: people's names and e-mail addresses turn up there.
  const bare = (url) => url.split(/[?#]/)[0];
  const view = () => track("page_viewed", {
    url: bare(location.href), path: location.pathname, referrer: bare(document.referrer) || undefined,
  });

  // The customer has logged in, as the server says by its signature; without id he has logged out.
  const identify = (id, signature) => {
    const name = id == null ? undefined : String(id);
    // Whoever comes next at a shared device is somebody else.
    if (linked !== undefined && linked !== name) {
      visitor = random();
      used = false;
      told = undefined;
    }
    customer = name === undefined ? {} : { customer_id: name, customer_signature: signature };
    linked = name;
    if (name !== undefined && used && told !== name) {
      told = name;
      track("identified");
    }
    keep({});
  };
  // consent({personalise: true, analytics: false}, {text_version: "3"}), or true or false for both of these.
  const consent = (choices, proof) => {
    if (typeof choices === "boolean") choices = { personalise: choices, analytics: choices };
    const said = JSON.stringify([choices, proof, customer.customer_id]);
    if (stored && stored.said === said) return;
    for (const [purpose, granted] of Object.entries(choices))
      post("consents", { id: random(), ...who(), purpose, granted, ...proof });
    if (choices.personalise === false && !choices.analytics) store((stored = null));
    else if ((choices.personalise || choices.analytics) && !gpc) {
      if (!load()) store({ id: visitor });
      keep({ said });
    }
  };

  // Offers: filled in, watched, reported by their tokens.
  const report = (token, outcome) => post("outcomes", { token, outcome });
  const watched = new WeakMap();
  let hiddenAt = 0;
  const eyes = new IntersectionObserver((entries) => entries.forEach(({ target, intersectionRatio, intersectionRect }) => {
    const offer = watched.get(target);
    const visible = intersectionRatio >= 0.5 || intersectionRect.height >= innerHeight / 2;
    if (visible && !offer.timer) look(target, offer);
    if (!visible) offer.timer = clearTimeout(offer.timer);
  }), { threshold: [0, 0.25, 0.5, 0.75] });
  // Shown means: half of it, or half a screen of it, could be seen for a second without a break.
  const look = (element, offer) => {
    const since = Date.now();
    offer.timer = setTimeout(() => {
      const seen = !document.hidden && hiddenAt < since && (!element.checkVisibility
        || element.checkVisibility({ opacityProperty: true, visibilityProperty: true }));
      if (!seen) return look(element, offer);
      eyes.unobserve(element);
      report(offer.token, "shown");
    }, 1000);
  };
  const watch = (element, token) => {
    watched.set(element, { token });
    eyes.observe(element);
    let clicked = false;
    const click = (event) => {
      if (clicked || event.button > 1) return;
      clicked = true;
      report(token, "clicked");
    };
    element.addEventListener("click", click);
    element.addEventListener("auxclick", click);
  };
  // An address out of a catalogue must not be a script.
  const safe = (url) => (/^https?:$/.test(Object.assign(document.createElement("a"), { href: url }).protocol) ? url : "");
  const plain = () => {
    const link = document.createElement("a");
    link.dataset.offer = "url";
    for (const [name, kind] of [["image_url", "img"], ["name", "span"], ["price", "span"]])
      link.appendChild(document.createElement(kind)).dataset.offer = name;
    return link;
  };
  const dress = (element, offer) => {
    const fields = { ...offer.content, ...offer.product, reason: offer.reasons[0] };
    if (fields.price != null && fields.currency) {
      fields.price = new Intl.NumberFormat(document.documentElement.lang || undefined, {
        style: "currency", currency: fields.currency,
      }).format(fields.price);
    }
    for (const part of [element, ...element.querySelectorAll("[data-offer]")]) {
      const value = fields[part.dataset.offer];
      if (part.dataset.offer === undefined) continue;
      if (part.tagName === "A") value && (part.href = safe(value));
      else if (part.tagName === "IMG") value ? ((part.src = safe(value)), (part.alt = fields.name || "")) : part.remove();
      else part.textContent = value == null ? "" : value;
    }
  };
  const fill = (element, offers) => {
    const template = element.querySelector("template");
    const made = offers.map((offer) => {
      const node = template ? template.content.firstElementChild.cloneNode(true) : plain();
      dress(node, offer);
      return node;
    });
    element.replaceChildren(...(template ? [template] : []), ...made);
    offers.forEach(({ token }, at) => token && watch(made[at], token));
  };
  // Fills the elements with data-placement="PLACEMENT", or `element`; without offers they stay as they are.
  const recommend = async (placement, context = {}, element = null) => {
    try {
      // What was just told counts already, if it arrives in time. Trap: not flushed at once, or the page's own view,
      // which comes after what was called early, would not be among it.
      await Promise.race([Promise.resolve().then(flush), new Promise((done) => setTimeout(done, 300))]);
      const answer = await fetch(`${recommender}/v1/recommendations`, {
        method: "POST",
        headers: bearer,
        credentials: "omit",
        body: JSON.stringify({ placement, ...who(), context: gpc ? { ...context, gpc } : context, after: position }),
      });
      const told = await answer.json();
      if (document.readyState === "loading")
        await new Promise((done) => document.addEventListener("DOMContentLoaded", done, { once: true }));
      if (!answer.ok) throw new Error(`${told.code}: ${told.detail}`);
      const places = element ? [element] : document.querySelectorAll(`[data-placement="${CSS.escape(placement)}"]`);
      if (told.offers.length) places.forEach((place) => fill(place, told.offers));
      return told.offers;
    } catch (error) {
      warn(error.message);
      return [];
    }
  };

  if (!key) return warn("the script needs data-key");
  const push = ([name, ...values]) => window.closedloop[name](...values);
  window.closedloop = { track, identify, consent, recommend, visitor: () => visitor, push };
  addEventListener("online", flush);
  addEventListener("pagehide", leave);
  addEventListener("pageshow", (event) => event.persisted && view());
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return resume();
    hiddenAt = Date.now();
    leave();
  });
  const begin = () => {
    try {
      // Calls made before the tag was there: (window.closedloop = window.closedloop || []).push(["track", …])
      // They come first: who was identified by them has seen this page as himself, and nothing is to be linked.
      if (Array.isArray(early)) early.forEach(push);
    } finally {
      view();
      resume();
    }
  };
  if (document.prerendering) document.addEventListener("prerenderingchange", begin, { once: true });
  else begin();
})();
