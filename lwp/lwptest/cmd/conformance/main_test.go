package main

import (
	"os"
	"strings"
	"testing"
)

const events = `
{"Action":"output","Package":"lwprt/lwp","Test":"TestConformanceX/good","Output":"=== RUN\n"}
{"Action":"pass","Package":"lwprt/lwp","Test":"TestConformanceX/good/part"}
{"Action":"pass","Package":"lwprt/lwp","Test":"TestConformanceX/good"}
{"Action":"output","Package":"lwprt/lwp","Test":"TestConformanceX/skipped","Output":"    file_test.go:12: needs | to be root\n"}
{"Action":"skip","Package":"lwprt/lwp","Test":"TestConformanceX/skipped"}
{"Action":"fail","Package":"lwprt/lwp","Test":"TestConformanceX/bad"}
{"Action":"pass","Package":"lwprt/lwp","Test":"TestConformanceY/bad"}
{"Action":"pass","Package":"lwprt/lwp","Test":"TestConformanceX/unheard"}
{"Action":"fail","Package":"lwprt/lwp","Test":"TestOther/good"}
not JSON
`

var testGroups = []group{
	{"One", "lwprt/lwp", []row{{"good", "holds", ""}, {"skipped", "a|b", ""}, {"bad", "c", ""}, {"missing", "d", ""}, {"never", "e", "no such machine"}}},
	{"Two", "lwprt/other", []row{{"later", "f", ""}}},
}

func TestTableSaysHowEachRowEnded(t *testing.T) {
	r, err := read(strings.NewReader(events))
	if err != nil {
		t.Fatal(err)
	}
	table, problems := r.table(testGroups)
	for _, want := range []string{
		"| good | holds | pass |\n", `| skipped | a\|b | skip: needs \| to be root |` + "\n", "| bad | c | fail |\n",
		"| missing | d | no test |\n", "| never | e | not applicable: no such machine |\n",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
	if strings.Contains(table, "later") {
		t.Error("rows of a package without tests are listed")
	}
	all := strings.Join(problems, "\n")
	for _, want := range []string{"bad: fails", "missing: no test", "unheard, which is no row"} {
		if !strings.Contains(all, want) {
			t.Errorf("no problem %q in\n%s", want, all)
		}
	}
	if len(problems) != 3 {
		t.Errorf("%d problems\n%s", len(problems), all)
	}
}

func TestChangedTableIsAProblem(t *testing.T) {
	const old = "| a | x | pass |\n| b | y | pass |"
	if p := compare(old, old, false); p != nil {
		t.Error(p)
	}
	skipped := strings.Replace(old, "y | pass", "y | skip: not root", 1)
	if p := compare(old, skipped, false); len(p) != 1 {
		t.Error("a row that is skipped now: ", p)
	}
	if p := compare(old, skipped, true); p != nil {
		t.Error(p)
	}
	if p := compare(skipped, old, true); len(p) != 1 {
		t.Error("a row that passes now: ", p)
	}
	if p := compare(old, old+"\n| c | z | pass |", true); len(p) != 1 {
		t.Error("a row more: ", p)
	}
}

// TestCommittedTableIsOfTheseRows: rows and checks of the table are those of
// this program; whether the results are is for -check to say.
func TestCommittedTableIsOfTheseRows(t *testing.T) {
	b, err := os.ReadFile("../../../CONFORMANCE.md")
	if err != nil {
		t.Fatal(err)
	}
	table := string(b)
	for _, g := range groups {
		if !strings.Contains(table, "## "+g.title+"\n") {
			if g.pkg == "lwprt/lwp" {
				t.Errorf("no group %q", g.title)
			}
			continue
		}
		for _, row := range g.rows {
			if !strings.Contains(table, "| "+row.name+" | "+escape(row.checks)+" | ") {
				t.Errorf("no row %s, or with other checks", row.name)
			}
		}
	}
	if strings.Contains(table, "| no test |") || strings.Contains(table, "| fail |") {
		t.Error("the table has rows that fail, or have no test")
	}
}
