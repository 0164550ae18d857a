package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// reportPage is the page that has everything.
const reportPage = "report.md"

// files returns what the results make of dir and of the pages, by name. A
// plot without results is no file.
func (all *results) files(dir string, pages []string) (map[string][]byte, error) {
	files := map[string][]byte{}
	var report bytes.Buffer
	report.WriteString("# Benchmarks\n\nAll results of this directory. What one op is, and what each row does and does not do,\n" +
		"the comments of the benchmarks say in package bench.\n\n" + all.machines())
	for _, p := range plots {
		if svg := p.draw(all); svg != nil {
			files[filepath.Join(dir, p.file())] = svg
			report.WriteString("\n" + p.link("", all))
		}
	}
	report.WriteString("\n## What we lose\n\n" + all.lossTable())
	for _, c := range all.comparisons {
		fmt.Fprintf(&report, "\n## %s\n\n%s", c.name, c.markdown())
	}
	files[filepath.Join(dir, reportPage)] = report.Bytes()
	for _, page := range pages {
		old, err := os.ReadFile(page)
		if err != nil {
			return nil, err
		}
		to, err := relative(page, dir)
		if err != nil {
			return nil, err
		}
		now, err := all.fill(string(old), to)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", page, err)
		}
		files[page] = []byte(now)
	}
	return files, nil
}

// relative returns the way from a page to dir.
func relative(page, dir string) (string, error) {
	page, err := filepath.Abs(page)
	if err != nil {
		return "", err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	to, err := filepath.Rel(filepath.Dir(page), dir)
	return filepath.ToSlash(to), err
}

// write writes the files, and removes plots from dir that have no results.
func write(dir string, files map[string][]byte) error {
	for _, name := range orphans(dir, files) {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	for name, text := range files {
		if err := os.WriteFile(name, text, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// stale returns an error that names the files which are not as they should be.
func stale(dir string, files map[string][]byte) error {
	bad := orphans(dir, files)
	for name, text := range files {
		if is, err := os.ReadFile(name); err != nil || !bytes.Equal(is, text) {
			bad = append(bad, name)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad)
	return errors.New("not what the results say; run with -render: " + strings.Join(bad, ", "))
}

// orphans are plots in dir that the results do not make.
func orphans(dir string, files map[string][]byte) (names []string) {
	have, _ := filepath.Glob(filepath.Join(dir, "*.svg"))
	for _, name := range have {
		if files[name] == nil {
			names = append(names, name)
		}
	}
	return names
}

var marker = regexp.MustCompile(`^<!-- bench:(.+) -->$`)

const markerEnd = "<!-- /bench -->"

// fill returns text with what belongs there put between its markers; dir is
// where the plots are, seen from the page.
func (all *results) fill(text, dir string) (string, error) {
	var b bytes.Buffer
	open, places := "", 0
	for line := range strings.Lines(text) {
		s := strings.TrimSpace(line)
		if m := marker.FindStringSubmatch(s); m != nil {
			if open != "" {
				return "", fmt.Errorf("bench:%s is not closed", open)
			}
			open = m[1]
			places++
			block, err := all.block(strings.Fields(open), dir)
			if err != nil {
				return "", err
			}
			b.WriteString(line)
			b.WriteString(block)
			continue
		}
		if s == markerEnd {
			if open == "" {
				return "", fmt.Errorf("%s without a beginning", markerEnd)
			}
			open = ""
		}
		if open == "" {
			b.WriteString(line)
		}
	}
	if open != "" {
		return "", fmt.Errorf("bench:%s is not closed", open)
	}
	if places == 0 {
		return "", fmt.Errorf("no <!-- bench:NAME --> in it")
	}
	return b.String(), nil
}

// block makes what stands between two markers.
func (all *results) block(names []string, dir string) (string, error) {
	if len(names) == 1 {
		switch names[0] {
		case "machine":
			return all.machines(), nil
		case "losses":
			return all.lossTable(), nil
		}
		if file, ok := strings.CutPrefix(names[0], "plot:"); ok {
			for _, p := range plots {
				if p.name == file {
					return p.link(dir, all), nil
				}
			}
			return "", fmt.Errorf("there is no plot %s", file)
		}
	}
	var cs []*comparison
	var missing []string
	for _, name := range names {
		if c := all.find(name); c != nil {
			cs = append(cs, c)
		} else {
			missing = append(missing, name)
		}
	}
	var s string
	switch {
	case len(cs) == 0:
	case len(names) == 1:
		s = cs[0].markdown()
	default:
		s = pivot(cs)
	}
	if len(missing) > 0 {
		if s != "" {
			s += "\n"
		}
		s += notMeasured(missing...)
	}
	return s, nil
}

// notMeasured stands where results are missing, as they do when a benchmark is
// new and machines to measure it on are not at hand.
func notMeasured(names ...string) string {
	return "Not measured yet: " + strings.Join(names, ", ") + ".\n"
}
