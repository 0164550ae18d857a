// Package worker is for the test of the command.
package worker

import "strings"

type counter struct{ n int }

func (c *counter) add(n int) { c.n += n }

func (c counter) name() string { return strings.Repeat("n", c.n) }

func quiet(c *counter) {
	for i := range 10 {
		c.add(i)
	}
}

func largest[T int | float64](s []T) (m T) {
	for _, v := range s {
		m = max(m, v)
	}
	return m
}

func keep(s []int, n int) []int { return append(s, n) }

var _ = []any{quiet, largest[int], keep, counter.name}
