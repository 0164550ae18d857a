package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// machine describes what the results are measured on.
func machine() [][2]string {
	var m [][2]string
	add := func(key, value string) {
		if value == "" {
			value = "unknown"
		}
		m = append(m, [2]string{key, value})
	}
	add("cpu", cpuModel())
	var u unix.Utsname
	unix.Uname(&u)
	add("kernel", unix.ByteSliceToString(u.Sysname[:])+" "+unix.ByteSliceToString(u.Release[:]))
	add("go", output("go", "env", "GOVERSION"))
	commit := output("git", "rev-parse", "--short=12", "HEAD")
	// Results and pages are no part of what is measured.
	if commit != "" && output("git", "status", "--porcelain", ":/", ":(top,exclude)bench/results", ":(top,exclude)*.md") != "" {
		commit += "+dirty"
	}
	add("commit", commit)
	add("cc", compiler())
	load, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(load), " ")
	add("load", one)
	return m
}

// cpuModel returns the name of the CPU, or on machines that do not give one
// the numbers by which they do.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	found := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		k, v, _ := strings.Cut(s.Text(), ":")
		found[strings.TrimSpace(k)] = strings.TrimSpace(v)
	}
	if name := found["model name"]; name != "" {
		return name
	}
	if found["CPU implementer"] == "" {
		return ""
	}
	return "implementer " + found["CPU implementer"] + " part " + found["CPU part"]
}

// compiler returns the first line of what the C compiler calls itself.
func compiler() string {
	cc := strings.Fields(os.Getenv("CC"))
	if len(cc) == 0 {
		cc = []string{"cc"}
	}
	first, _, _ := strings.Cut(output(cc[0], "--version"), "\n")
	if first == "" {
		return "none"
	}
	return first
}

func output(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
