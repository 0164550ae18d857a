package examples

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"lwprt/lwp/lwptest"
)

func TestPriorityInversionIsShownAndCured(t *testing.T) {
	out, err := run(t, build(t, "priorityinversion"))
	if err != nil && strings.Contains(out, "sched_setscheduler") {
		find1(t, out, `This program needs the right to make real-time threads: .*`)
		t.Skip("no real-time threads here, and the program says so")
	}
	if err != nil {
		t.Fatal(err)
	}
	plain, lent, ok := strings.Cut(out, "\n2. ")
	if !ok {
		t.Fatal("no second part")
	}
	if lwptest.Emulated() {
		t.Skip("the emulator's own threads come between those of the program")
	}
	before := func(part, first, second string) {
		t.Helper()
		find1(t, part, `[\d.]+ ms  `+first)
		find1(t, part, `[\d.]+ ms  `+second)
		at := func(line string) int { return regexp.MustCompile(`(?m)ms  ` + line + `$`).FindStringIndex(part)[0] }
		if at(first) > at(second) {
			t.Errorf("%q comes after %q in\n%s", first, second, part)
		}
	}
	const highGets, middleEnds = `high +gets the lock`, `middle +is done`
	before(plain, middleEnds, `low +gives the lock up`)
	before(plain, middleEnds, highGets)
	before(lent, `low +gives the lock up`, highGets)
	before(lent, highGets, `middle +begins to work`)
	for _, part := range []string{plain, lent} {
		for _, who := range []string{"high", "middle", "low"} {
			find1(t, part, who+` +\|[ #=?.]+\|`)
		}
		find1(t, part, `high has waited [\d.]+ ms: .*`)
	}
}

func TestWatchdogCountsEveryLook(t *testing.T) {
	out := ran(t, "watchdog")
	thread, goroutine, ok := strings.Cut(out, "\n2. ")
	if !ok {
		t.Fatal("no second part")
	}
	percent := func(part, pattern string) float64 {
		p, err := strconv.ParseFloat(find1(t, part, pattern)[1], 64)
		if err != nil || p < 0 || p > 100 {
			t.Errorf("%s: %v%%, %v", pattern, p, err)
		}
		return p
	}
	kept := map[string]float64{}
	for name, part := range map[string]string{"thread": thread, "goroutine": goroutine} {
		m := find1(t, part, `(\d+) collections, (\d+) looks at the clock`)
		if m[1] == "0" {
			t.Errorf("%s: the collector did not run", name)
		}
		sum := 0
		for _, gaps := range find(t, part, `gaps (?:from|below) \S+ +(\d+) *#*`, 6) {
			sum += number(t, gaps[1])
		}
		if sum != number(t, m[2]) || sum == 0 {
			t.Errorf("%s: %d gaps, %s looks", name, sum, m[2])
		}
		lost := percent(part, `lost ([\d.]+)% of the time, the longest gap is [\d.]+ ms`)
		kept[name] = lost - percent(part, `others had its CPU for ([\d.]+)% of the time`)
	}
	t.Logf("beside what other programs took: the thread lost %.2f%%, the goroutine %.2f%%", kept["thread"], kept["goroutine"])
}
