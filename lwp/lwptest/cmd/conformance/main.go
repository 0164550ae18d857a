// Conformance prints which checks of the Linux Test Project and of the kernel's
// own tests lwprt makes, and how they end on this machine: a table in Markdown.
//
//	go run ./lwp/lwptest/cmd/conformance > lwp/CONFORMANCE.md
//	go run ./lwp/lwptest/cmd/conformance -check lwp/CONFORMANCE.md
//	go test -json -run '^TestConformance' ./... | go run ./lwp/lwptest/cmd/conformance -stdin
//
// It runs the tests called TestConformance..., whose subtests have the names of
// the rows. Rows of a package that has no such test yet are left out; in one
// that has, a row without a test is a failure. With -check it compares with a
// table that was printed before, and fails where a row fails, has no test, or
// is not as it was. With -skips as well, a row that passed there may be skipped
// here: for want of privilege, or on an older kernel.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

func main() {
	check := flag.String("check", "", "compare with the table in `file`")
	skips := flag.Bool("skips", false, "with -check: rows may be skipped")
	stdin := flag.Bool("stdin", false, "read the output of go test -json from standard input")
	flag.Parse()
	if flag.NArg() != 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(os.Stdout, *check, *skips, *stdin); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, check string, skips, stdin bool) error {
	in := io.Reader(os.Stdin)
	if !stdin {
		// Its exit status says that a test failed, which the rows tell too.
		cmd := exec.Command("go", "test", "-json", "-count=1", "-run", "^TestConformance", "lwprt/...")
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if len(out) == 0 {
			return fmt.Errorf("go test: %w", err)
		}
		in = bytes.NewReader(out)
	}
	r, err := read(in)
	if err != nil {
		return err
	}
	table, problems := r.table(groups)
	if check == "" {
		io.WriteString(w, table)
	} else {
		old, err := os.ReadFile(check)
		if err != nil {
			return err
		}
		problems = append(problems, compare(string(old), table, skips)...)
	}
	for _, p := range problems {
		fmt.Fprintln(os.Stderr, p)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%d rows are not as they should be", len(problems))
	}
	return nil
}

// An outcome is how a row's test has ended.
type outcome struct {
	action string // pass, skip, fail
	reason string // of a skip
}

// results are outcomes by package and row.
type results map[string]map[string]outcome

// read takes the output of go test -json.
func read(in io.Reader) (results, error) {
	r := results{}
	said := map[string]string{} // by package and test, its last line of output
	s := bufio.NewScanner(in)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var e struct{ Action, Package, Test, Output string }
		if json.Unmarshal(s.Bytes(), &e) != nil {
			continue // what the go command itself prints
		}
		top, name, ok := strings.Cut(e.Test, "/")
		if !ok || !strings.HasPrefix(top, "TestConformance") {
			continue
		}
		key := e.Package + " " + e.Test
		if m := located.FindStringSubmatch(e.Output); m != nil {
			said[key] = m[1]
		}
		if strings.Contains(name, "/") {
			continue // a part of a row
		}
		switch e.Action {
		case "pass", "skip", "fail":
			if r[e.Package] == nil {
				r[e.Package] = map[string]outcome{}
			}
			o := outcome{action: e.Action}
			if e.Action == "skip" {
				o.reason = said[key]
			}
			// Two tests can cover one row: it is as good as the worse.
			if old, ok := r[e.Package][name]; !ok || worse(o, old) {
				r[e.Package][name] = o
			}
		}
	}
	return r, s.Err()
}

// located is a line of a test's log.
var located = regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)`)

func worse(a, b outcome) bool {
	rank := map[string]int{"pass": 0, "skip": 1, "fail": 2}
	return rank[a.action] > rank[b.action]
}

const head = `# Conformance

What the Linux Test Project and the kernel's own tests check of the system calls that lwprt is about,
made through lwprt. Each row is a test of that name; the checks are in our words. Printed by

    go run ./lwp/lwptest/cmd/conformance > lwp/CONFORMANCE.md

as root on Linux 6.18, amd64; CI fails where it differs.
`

// table returns the table, and what is wrong with it.
func (r results) table(groups []group) (table string, problems []string) {
	var b strings.Builder
	b.WriteString(head)
	for _, g := range groups {
		got := r[g.pkg]
		if got == nil {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\nTests of %s.\n\n| row | must hold | result |\n|---|---|---|\n", g.title, strings.TrimPrefix(g.pkg, "lwprt/"))
		for _, row := range g.rows {
			o, ok := got[row.name]
			result := o.action
			switch {
			case row.not != "":
				result = "not applicable: " + row.not
				if ok {
					problems = append(problems, row.name+": has a test, and is said not to apply")
				}
			case !ok:
				result = "no test"
				problems = append(problems, row.name+": no test")
			case o.action == "fail":
				problems = append(problems, row.name+": fails")
			case o.action == "skip":
				result = "skip: " + o.reason
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", row.name, escape(row.checks), escape(result))
		}
	}
	known := map[string]bool{}
	for _, g := range groups {
		for _, row := range g.rows {
			known[g.pkg+" "+row.name] = true
		}
	}
	for pkg, rows := range r {
		for name := range rows {
			if !known[pkg+" "+name] {
				problems = append(problems, pkg+": a test named "+name+", which is no row")
			}
		}
	}
	return b.String(), problems
}

func escape(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// compare says in what the new table differs from the old.
func compare(old, now string, skips bool) (problems []string) {
	before, after := strings.Split(old, "\n"), strings.Split(now, "\n")
	if len(before) != len(after) {
		return []string{fmt.Sprintf("the table has %d lines, and had %d: print it again", len(after), len(before))}
	}
	for i, line := range after {
		was := before[i]
		if line == was {
			continue
		}
		if skips && strings.HasSuffix(was, "| pass |") && strings.HasPrefix(line, strings.TrimSuffix(was, "pass |")+"skip: ") {
			continue
		}
		problems = append(problems, fmt.Sprintf("was %s\nis  %s", was, line))
	}
	return problems
}
