package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// peers says what each of ours is to be compared with. Of what is not here
// nothing is said to be lost.
var peers = map[string][]string{
	"fiber":    {"goroutine", "lockedgoroutine", "sync", "iterpull", "fcontext", "pthread"},
	"lwp":      {"goroutine", "lockedgoroutine", "pthread", "clonefloor"},
	"futex":    {"sync", "pthread"},
	"futexlwp": {"sync", "pthread"},
	"ring":     {"chan", "lockedchan"},
	"ringgo":   {"chan"},
	"ringmpmc": {"chan", "lockedchan"},
	"fibers":   {"chan"},
	"handler":  {"goroutine", "lockedgoroutine"},

	"handlerfiber":  {"goroutine", "lockedgoroutine"},
	"handlerfibers": {"goroutine", "lockedgoroutine"},
	"fork":          {"cfork"},
	"vfork":         {"cvfork"},
	"vforkquiet":    {"cvfork"},
	"clonevm":       {"cclonevm"},
	"spawnexec":     {"osexec", "posixspawn"},
}

// A loss is a peer that needs less of something.
type loss struct {
	where, ours, theirs, unit string
	we, they                  stat
}

func (l loss) ratio() float64 { return l.we.median / l.they.median }

// losses finds all that a U test confirms, in time and in memory, the worst
// first.
func (all *results) losses() (found []loss) {
	for _, c := range all.comparisons {
		for _, r := range c.rows {
			for _, other := range c.rows {
				if !slices.Contains(peers[r.impl], other.impl) {
					continue
				}
				for _, unit := range []string{mainUnit, "B/fiber"} {
					we, ok := r.in(unit)
					they, ok2 := other.in(unit)
					if ok && ok2 && they.median > 0 && they.median < we.median &&
						min(we.n, they.n) >= 4 && !alike(r.of[unit], other.of[unit]) {
						found = append(found, loss{c.name, r.impl, other.impl, unit, we, they})
					}
				}
			}
		}
	}
	slices.SortStableFunc(found, func(a, b loss) int { return cmp.Compare(b.ratio(), a.ratio()) })
	return found
}

// lossTable lists the losses.
func (all *results) lossTable() string {
	lost := all.losses()
	if len(lost) == 0 {
		return "Nothing that a U test confirms; it takes four rounds to confirm anything.\n"
	}
	var b strings.Builder
	b.WriteString("| benchmark | ours | | theirs | | ours / theirs |\n| --- | --- | ---: | --- | ---: | ---: |\n")
	for _, l := range lost {
		write := duration
		if l.unit != mainUnit {
			write = bytesOf
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", l.where, l.ours, write(l.we.median), l.theirs, write(l.they.median), quotient(l.ratio()))
	}
	return b.String()
}
