package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// The program is this test binary, told to be main.
func TestMain(m *testing.M) {
	if os.Getenv("FAULTS_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// lines returns the line of each comment "mistake N" in main.go.
func lines(t *testing.T) map[int]int {
	t.Helper()
	f, err := os.Open("main.go")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	of := map[int]int{}
	s := bufio.NewScanner(f)
	for line := 1; s.Scan(); line++ {
		if _, n, ok := strings.Cut(s.Text(), "// mistake "); ok {
			i, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			of[i] = line
		}
	}
	return of
}

func TestEveryMistakeIsContainedAndExplained(t *testing.T) {
	lwptest.SkipRace(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, state := lwptest.Exec(t, func(c *exec.Cmd) { c.Env = append(c.Env, "FAULTS_MAIN=1") }, self)
	t.Log(out)
	if !state.Success() {
		t.Fatalf("ended with %v", state)
	}
	line := lines(t)
	for i, c := range []struct {
		reason lwp.Reason
		in     string
		says   string
	}{
		{lwp.NilDereference, "followNil", ""},
		{lwp.IndexOutOfRange, "indexBeyond", ""},
		{lwp.DivideByZero, "divide", ""},
		{lwp.HeapAllocation, "allocate", "lwp.Arena"},
		{lwp.Printing, "printIt", "lwp.Line"},
		{lwp.ChannelOperation, "receive", "package futex"},
		{lwp.MapOperation, "growMap", "not grow"},
		{lwp.GoStatement, "startGoroutine", "lwp.Start"},
		{lwp.ClockOrTimer, "pause", "lwp.Sleep"},
		{lwp.StackOverflow, "depth", "Attr.StackSize"},
	} {
		n := i + 1
		at := `\d+`
		if c.in != "depth" {
			if line[n] == 0 {
				t.Fatalf("main.go has no mistake %d", n)
			}
			at = strconv.Itoa(line[n])
		}
		// The title, the error, the advice, perhaps what the thread prints, and the result.
		want := fmt.Sprintf(`(?m)^%d\. A thread is to .*\.\n`+
			`   lwp: thread \d+: %s.* in (?:main|lwprt/examples/faults)\.%s \(.*main\.go:%s\).*%s.*\n`+
			`   Instead: .*\.\n(   thread: .*\n)?   It works: [1-9]\d*\.$`,
			n, regexp.QuoteMeta(c.reason.String()), c.in, at, regexp.QuoteMeta(c.says))
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("step %d does not print what matches\n%s", n, want)
		}
	}
	stack := regexp.MustCompile(`nil dereference, SIGSEGV\n.*\.inner\n\t.*main\.go:\d+\n.*\.outer\n\t.*main\.go:\d+\n.*\.main\.func1\n\t.*main\.go:\d+\n`)
	if !stack.MatchString(out) {
		t.Errorf("no stack like\n%s", stack)
	}
	if !strings.HasSuffix(out, "The program goes on.\n") {
		t.Error("the program did not go on")
	}
}
