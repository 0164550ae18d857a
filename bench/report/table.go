package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// markdown is the table of one comparison: a row for each impl.
func (c *comparison) markdown() string {
	var b strings.Builder
	head := []string{"impl", "median"}
	many := c.rounds() > 1
	if many {
		head = append(head, interval(c.rounds()))
	}
	units := c.units()
	head = append(head, "ratio")
	for _, u := range units {
		name, _ := column(u)
		head = append(head, name)
	}
	b.WriteString("| " + strings.Join(head, " | ") + " |\n| --- |" + strings.Repeat(" ---: |", len(head)-1) + "\n")
	for _, r := range c.rows {
		s, _ := r.in(mainUnit)
		fmt.Fprintf(&b, "| %s | %s |", r.impl, duration(s.median))
		if many {
			b.WriteString(" " + span(s) + " |")
		}
		b.WriteString(" " + c.ratio(r) + " |")
		for _, u := range units {
			cell := ""
			if s, ok := r.in(u); ok {
				_, write := column(u)
				cell = write(s.median)
			}
			b.WriteString(" " + cell + " |")
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "\n%s; %s.\n", origin(c.procs, c.rounds(), c.rounds()), c.from.name)
	return b.String()
}

// pivot is the table of several comparisons: a row for each, a column for each
// impl. The first column is what the others of the row are compared with.
func pivot(cs []*comparison) string {
	var impls []string
	lo, hi := cs[0].rounds(), 0
	procs := cs[0].procs
	for _, c := range cs {
		if c.procs != procs {
			procs = ""
		}
		lo, hi = min(lo, c.rounds()), max(hi, c.rounds())
		for _, r := range c.rows {
			if !slices.Contains(impls, r.impl) {
				impls = append(impls, r.impl)
			}
		}
	}
	var b strings.Builder
	b.WriteString("| | " + strings.Join(impls, " | ") + " |\n| --- |" + strings.Repeat(" ---: |", len(impls)) + "\n")
	for _, c := range cs {
		b.WriteString("| " + strings.TrimSuffix(c.name, "-"+procs) + " |")
		for _, impl := range impls {
			cell := ""
			if i := slices.IndexFunc(c.rows, func(r *row) bool { return r.impl == impl }); i >= 0 {
				s, _ := c.rows[i].in(mainUnit)
				cell = duration(s.median)
				if spread := s.spread(); spread != "" {
					cell += " ± " + spread
				}
				if i > 0 {
					cell += "; **" + c.ratio(c.rows[i]) + "**"
				}
			}
			b.WriteString(" " + cell + " |")
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "\n%s; %s.\n", origin(procs, lo, hi), cs[0].from.name)
	return b.String()
}

// ratio is that of r's median to the first row's.
func (c *comparison) ratio(r *row) string {
	base, _ := c.rows[0].in(mainUnit)
	s, _ := r.in(mainUnit)
	if base.median == 0 {
		return ""
	}
	ratio := quotient(s.median / base.median)
	if r != c.rows[0] && alike(r.of[mainUnit], c.rows[0].of[mainUnit]) {
		ratio += " ≈"
	}
	return ratio
}

// origin says how results were measured: on what, and in lo to hi rounds.
func origin(procs string, lo, hi int) string {
	var s string
	switch procs {
	case "":
		s = "-2: two CPUs, else one; "
	case "1":
		s = "One CPU; "
	default:
		s = "GOMAXPROCS=" + procs + "; "
	}
	switch {
	case hi == 1:
		return s + "one round"
	case lo == 1:
		return s + fmt.Sprintf("1 to %d rounds", hi)
	case lo != hi:
		return s + fmt.Sprintf("%d to %d rounds, intervals of %s or more", lo, hi, interval(lo))
	}
	return s + fmt.Sprintf("%d rounds, intervals of %s", lo, interval(lo))
}

// column returns how a unit is headed and written in a table: a duration is
// easier to read in a unit that suits it.
func column(unit string) (head string, write func(float64) string) {
	for _, suffix := range []string{"-ns/op", "-ns"} {
		if s, ok := strings.CutSuffix(unit, suffix); ok {
			return s, duration
		}
	}
	return unit, digits
}

// interval says how sure an interval from n rounds is.
func interval(n int) string { return fmt.Sprintf("%.0f %%", 100*confidence(n)) }

// span writes a confidence interval.
func span(s stat) string {
	if s.n < 2 {
		return ""
	}
	lo, hi := duration(s.lo), duration(s.hi)
	if l, u := lo[strings.IndexByte(lo, ' '):], hi[strings.IndexByte(hi, ' '):]; l == u {
		lo = strings.TrimSuffix(lo, l)
	}
	return lo + "–" + hi
}

// duration writes a number of nanoseconds with three digits or more.
func duration(ns float64) string {
	switch {
	case ns >= 1e9:
		return digits(ns/1e9) + " s"
	case ns >= 1e6:
		return digits(ns/1e6) + " ms"
	case ns >= 1e3:
		return digits(ns/1e3) + " µs"
	}
	return digits(ns) + " ns"
}

// bytesOf writes a number of bytes with three digits or more.
func bytesOf(n float64) string {
	switch {
	case n >= 1e6:
		return digits(n/1e6) + " MB"
	case n >= 1e3:
		return digits(n/1e3) + " kB"
	}
	return digits(n) + " B"
}

func digits(v float64) string {
	switch {
	case v >= 99.95: // which is 100
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// quotient writes a ratio so that a small one is not nothing.
func quotient(v float64) string {
	if v > 0 && v < 0.095 {
		// Two digits that say something.
		return strconv.FormatFloat(v, 'f', 1-int(math.Floor(math.Log10(v))), 64)
	}
	return digits(v)
}

// machines says where the numbers come from.
func (all *results) machines() string {
	var b strings.Builder
	b.WriteString("| raw results | CPU | kernel | Go | commit | SHA-256 |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, s := range all.sources {
		c := s.config
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s… |\n", s.name, c["cpu"], c["kernel"], c["go"], c["commit"], s.sum)
	}
	for _, s := range all.sources {
		if cmd := s.config["command"]; cmd != "" {
			fmt.Fprintf(&b, "\n%s is of `%s` in bench/report, with load %s before.\n", s.name, cmd, s.config["load"])
		}
	}
	return b.String()
}
