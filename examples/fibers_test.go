package examples

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"lwprt/lwp/lwptest"
)

func TestFibersAddUpWhatTheirChildrenDid(t *testing.T) {
	find1(t, ran(t, "fibers"), `1 \+ 4 \+ 9 \+ \.\.\. \+ 100 = 385 by 11 fibers`)
}

// decimal is a number that an example has measured: not nothing.
func decimal(t *testing.T, s string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v <= 0 {
		t.Errorf("a measurement of %q", s)
	}
	return v
}

func TestGreenThreadsAreCountedAndTimed(t *testing.T) {
	n := 100_000
	if lwptest.Emulated() {
		n = 1000
	}
	out := ran(t, "greenthreads", "-n", strconv.Itoa(n)) // which checks itself that everybody came, yielded and was woken
	for _, what := range []string{"create and come, ns", "the same again, ns", "yield, ns", "wake, end and join, ns", "resident memory, bytes"} {
		m := find1(t, out, regexp.QuoteMeta(what)+` +(\d+) +(\d+) +(\d+\.\d)`)
		fibers, goroutines := decimal(t, m[1]), decimal(t, m[2])
		ratio, _ := strconv.ParseFloat(m[3], 64)
		if r := goroutines / fibers; ratio < 0.8*r-0.1 || ratio > 1.2*r+0.1 {
			t.Errorf("%s: a ratio of %v", m[0], ratio)
		}
		if what == "resident memory, bytes" && n == 100_000 && (fibers < 2048 || goroutines < 2048) {
			t.Errorf("%s: a stack alone has more", m[0])
		}
	}
}

func TestPingPongIsInOrder(t *testing.T) {
	out := ran(t, "pingpong")
	var order []string
	for _, m := range find(t, out, `(ping|pong): (parks|has the ball, unparks the other|and still runs|ends)`, 13) {
		order = append(order, m[1]+" "+strings.Fields(m[2])[0])
	}
	want := []string{"ping parks", "ping has", "ping and", "ping parks", "pong parks", "pong has", "pong and", "pong parks",
		"ping has", "ping and", "ping parks", "pong ends", "ping ends"}
	if !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	for _, way := range []string{"fibers +Park, Unpark; one worker", "goroutines +channels; GOMAXPROCS=1",
		"fibers +each pinned .*", "goroutines +each locked .*"} {
		m := find1(t, out, way+` +(\d+) +(\d+\.\d)`)
		decimal(t, m[1])
		decimal(t, m[2])
	}
}

func TestDeadlockIsReportedWithNamesReasonsAndTraces(t *testing.T) {
	out := ran(t, "deadlock")
	starved, cured, ok := strings.Cut(out, "\n2. ")
	if !ok {
		t.Fatal("no second part")
	}
	names := []string{"Plato", "Hypatia", "Socrates", "Voltaire", "Arendt"}
	find(t, starved, `sched: deadlock: 5 fibers wait and nothing can wake them`, 2)
	for i, name := range names {
		fork := strconv.Itoa((i+1)%5 + 1) // the right one
		find1(t, starved, `fiber \d+\.\d+ \(`+name+`\): parked: fork `+fork+`, .*, worker 1, stack \d+ of \d+`)
		find1(t, starved, name+` +has eaten 0, waits for fork `+fork+` in takeSecond`)
		if m := find1(t, cured, name+` +has eaten (\d+)`); number(t, m[1]) != 1000 {
			t.Errorf("wrong: %s", m[0])
		}
	}
	for _, fn := range []string{`lwprt/sched\.Park`, `main\.\(\*fork\)\.take`, `main\.takeSecond`, `main\.dine`} {
		find(t, starved, `\s*`+fn, 5)
	}
	find(t, starved, `\s*.*/examples/deadlock/main\.go:\d+`, 15)
	find1(t, cured, `<nil>`)
}

func TestPhilosophersStarveAndAreCured(t *testing.T) {
	out := ran(t, "philosophers")
	starved, cured, ok := strings.Cut(out, "\n2. ")
	if !ok {
		t.Fatal("no second part")
	}
	for _, name := range []string{"Plato", "Hypatia", "Socrates", "Voltaire", "Arendt"} {
		find1(t, starved, name+` +is waiting, for: mutex`)
	}
	for _, fn := range []string{`lwprt/sched\.\(\*Mutex\)\.Lock`, `main\.starve`} {
		find1(t, starved, `\s*`+fn)
	}
	find(t, cured, `Everybody has eaten 1000 times.*`, 3)
	find1(t, cured, `(\d+) times somebody put his fork back.*`)
}

func TestBoundedBuffersLoseNothing(t *testing.T) {
	out := ran(t, "boundedbuffer") // which checks the sums itself
	find(t, out, `60000 numbers in, 60000 out, the sum 1800030000 is right.*`, 2)
	for _, m := range find(t, out, `There were at most (\d+) in it.*`, 2) {
		if n := number(t, m[1]); n < 1 || n > 8 {
			t.Errorf("wrong: %s", m[0])
		}
	}
}

func TestSkynetAddsUpAndStaysSmall(t *testing.T) {
	levels, sum := 5, `4999950000, by 111111 nodes`
	if lwptest.Emulated() {
		levels, sum = 3, `499500, by 1111 nodes`
	}
	out := ran(t, "skynet", "-levels", strconv.Itoa(levels)) // which checks the sums itself
	find1(t, out, `1\. The sum is `+sum)
	for _, way := range []string{"fibers, 1 worker", "goroutines, GOMAXPROCS=1", "fibers, 2 workers", "goroutines, GOMAXPROCS=2"} {
		m := find1(t, out, way+` +(\d+\.\d\d) +(\d+) +(\d+\.\d\d)`)
		if !lwptest.Emulated() {
			decimal(t, m[1])
			decimal(t, m[2])
		}
	}
	most := number(t, find1(t, out, `fibers, 1 worker: +at most (\d+)`)[1])
	goroutines := number(t, find1(t, out, `goroutines, GOMAXPROCS=1: +at most (\d+)`)[1])
	// Ten for each level and the root; more where a switch had to poll, and did not run the child.
	if most < 10*levels+1 || most > 1000 || goroutines < most {
		t.Errorf("at most %d fibers and %d goroutines at a time", most, goroutines)
	}
}
