package asm

import (
	"os/exec"
	"strings"
	"testing"
)

// rooms says what each directory may import of this module; directories not
// named may import every room. Nothing outside the module is allowed but the
// standard library and what is listed for all.
var rooms = map[string][]string{
	"asm":   {},
	"futex": {"asm"},
	"tls":   {"asm"},
	"lwp":   {"asm", "futex", "tls"},
	"sched": {"asm", "futex", "tls", "lwp"},
}

var outside = []string{"golang.org/x/sys/unix", "golang.org/x/sync/", "golang.org/x/arch/"}

func TestHouseImportsGoOneWay(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command: ", err)
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "lwprt/...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		path, _ := strings.CutPrefix(f[0], "lwprt/")
		room, _, _ := strings.Cut(path, "/")
		may, bounded := rooms[room]
		seen++
		for _, imp := range f[1:] {
			if bad(room, imp, may, bounded) {
				t.Errorf("%s imports %s", f[0], imp)
			}
		}
	}
	if seen < len(rooms)-1 { // sched is still empty
		t.Errorf("only %d packages seen", seen)
	}
}

func bad(room, imp string, may []string, bounded bool) bool {
	if own, ok := strings.CutPrefix(imp, "lwprt/"); ok {
		other, _, _ := strings.Cut(own, "/")
		if !bounded || other == room {
			return false
		}
		for _, m := range may {
			if m == other {
				return false
			}
		}
		return true
	}
	if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") {
		return imp == "C" // cgo
	}
	for _, o := range outside {
		if imp == strings.TrimSuffix(o, "/") || strings.HasSuffix(o, "/") && strings.HasPrefix(imp, o) {
			return room == "asm" // standard library only
		}
	}
	return true
}
