// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace piserve::server {

// Of the status page: its head with all of its style, and its script, which
// replaces <main> by a newer one every 2 s. Nothing may be loaded but the page.
inline constexpr char kPageHead[] = R"html(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>piserve</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
style-src 'unsafe-inline';script-src 'unsafe-inline';connect-src 'self';
img-src data:">
<link rel="icon" href="data:,">
<noscript><meta http-equiv="refresh" content="5"></noscript>
<style>
:root{--ink:#18212b;--dim:#5d6b7a;--line:#e2e8ee;--card:#fff;--page:#f4f6f8;
--a:#2563c9;--b:#c2570c;--c:#b3202a;--ok:#0b7a3b;--bar:#d5e3f8}
@media(prefers-color-scheme:dark){:root{--ink:#e3e9ef;--dim:#93a1b0;
--line:#2a343f;--card:#182029;--page:#0f151b;--a:#6ea8ff;--b:#ffa45c;
--c:#ff7f85;--ok:#5ad18b;--bar:#25405f}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:14px/1.45 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1180px;margin:0 auto;padding:20px 16px 32px}
header{display:flex;flex-wrap:wrap;gap:6px 14px;align-items:baseline;
margin-bottom:16px}
h1{font-size:22px;margin:0;letter-spacing:-.01em}
h2{font-size:14px;margin:0 0 8px}
h2 small,header small,.tile small{color:var(--dim);font-weight:400}
.pill{padding:2px 11px;border-radius:99px;font-weight:600;color:#fff;
background:var(--ok)}
.pill.no{background:var(--c)}
@media(prefers-color-scheme:dark){.pill{color:#0f151b}}
.tiles{display:grid;gap:12px;margin-bottom:12px;
grid-template-columns:repeat(6,1fr)}
.grid{display:grid;gap:12px;grid-template-columns:1fr 1fr}
.card,.tile{background:var(--card);border:1px solid var(--line);
border-radius:10px;padding:12px 14px;min-width:0}
.tile b{display:block;font-size:24px;line-height:1.2;white-space:nowrap;
font-variant-numeric:tabular-nums}
.tile b span{font-size:14px;font-weight:400;color:var(--dim);margin-left:3px}
.tile.bad b{color:var(--c)}
.wide{grid-column:1/-1}
table{border-collapse:collapse;width:100%}
th{font-weight:400;color:var(--dim);font-size:12px}
td,th{text-align:left;padding:4px 10px 4px 0;
border-bottom:1px solid var(--line);overflow-wrap:anywhere}
tr:last-child td{border-bottom:0}
td.n,th.n{text-align:right;padding:4px 0 4px 10px;white-space:nowrap;
font-variant-numeric:tabular-nums}
td.bar{width:42%;padding-right:0}
td.bar i{display:block;height:11px;min-width:1px;border-radius:3px;
background:var(--a);opacity:.75}
td code{font-size:12px}
.none{color:var(--dim);margin:0}
.legend{margin:0;display:flex;gap:14px;font-size:12px;color:var(--dim)}
.legend span:before{content:"";display:inline-block;width:10px;height:10px;
border-radius:3px;margin-right:5px;background:var(--a);vertical-align:-1px}
.legend .b:before{background:var(--b)}.legend .c:before{background:var(--c)}
.chart{position:relative;margin-top:8px}
.chart svg{display:block;width:100%;height:120px}
.chart polyline{fill:none;stroke:var(--a);stroke-width:1.8;
stroke-linejoin:round;vector-effect:non-scaling-stroke}
.chart .b{stroke:var(--b)}.chart .c{stroke:var(--c)}
.chart path{stroke:var(--line);vector-effect:non-scaling-stroke}
.top,.axis{font-size:11px;color:var(--dim)}
.top{position:absolute;top:2px;left:0;padding:0 5px 0 0;background:var(--card)}
.axis{display:flex;justify-content:space-between;margin:3px 0 0}
a{color:var(--a)}
footer{margin-top:14px;color:var(--dim)}
@media(max-width:900px){.tiles{grid-template-columns:repeat(3,1fr)}
.grid{grid-template-columns:1fr}}
@media(max-width:700px){.models th:nth-child(n+4),.models td:nth-child(n+4)
{display:none}}
@media(max-width:480px){main{padding:14px 10px}
.tiles{grid-template-columns:1fr 1fr;gap:8px}.tile b{font-size:20px}
td.bar{width:22%}}
</style></head><body>
)html";

inline constexpr char kPageScript[] = R"html(<script>
setInterval(async () => {
  if (document.hidden) return;
  let next = null;
  try {
    const page = await (await fetch('/', {cache: 'no-store'})).text();
    next = new DOMParser().parseFromString(page, 'text/html')
        .querySelector('main');
  } catch (error) {}
  if (next) {
    document.querySelector('main').replaceWith(next);
  } else {
    const pill = document.querySelector('.pill');
    pill.className = 'pill no';
    pill.textContent = 'does not answer';
  }
}, 2000);
</script>
)html";

}  // namespace piserve::server
