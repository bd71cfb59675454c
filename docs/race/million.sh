#!/bin/sh
# Draws the recorded run with a million books, which it reads, as an SVG: the median of a call without and with the index.
set -eu
awk '
NR == 1 { about = substr($0, 3) }
match($0, /p50 [0-9.]+ ms/) { p50[++n] = substr($0, RSTART + 4, RLENGTH - 7) }
function bar(y, class, name, ms) {
	printf "<text x=\"16\" y=\"%d\">%s</text>\n<rect class=\"%s\" x=\"160\" y=\"%d\" width=\"%.1f\" height=\"30\"/>\n", y + 21, name, class, y, ms / p50[1] * 620
	printf "<text x=\"%.1f\" y=\"%d\">%s ms</text>\n", 168 + ms / p50[1] * 620, y + 21, ms
}
END {
	if (n != 2) { print "the run has " n + 0 " medians, want 2" > "/dev/stderr"; exit 1 }
	title = "A million books, and two that match"
	print "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-labelledby=\"title desc\" width=\"960\" height=\"186\" viewBox=\"0 0 960 186\">"
	print "<title id=\"title\">" title "</title>\n<desc id=\"desc\">Without an index a call takes " p50[1] " ms, with one " p50[2] " ms. " about "</desc>"
	print "<style>svg { font: 16px system-ui, \"Segoe UI\", Roboto, \"Liberation Sans\", sans-serif }"
	print ".paper { fill: #fff } text { fill: #16191d } .big { font-size: 22px; font-weight: 600 } .small { font-size: 13px } .no { fill: #b8432b } .yes { fill: #1f6f8b }"
	print "@media (prefers-color-scheme: dark) { .paper { fill: #14171a } text { fill: #f2f4f6 } .no { fill: #f08a6c } .yes { fill: #58b4d1 } }</style>"
	print "<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n<text class=\"big\" x=\"16\" y=\"32\">" title "</text>"
	bar(56, "no", "without an index", p50[1])
	bar(98, "yes", "with an index", p50[2])
	print "<text class=\"small\" x=\"16\" y=\"158\">The time of a call of database3: the median of 20.</text>"
	print "<text class=\"small\" x=\"16\" y=\"176\">" about "</text>\n</svg>"
}'
