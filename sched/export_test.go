package sched

// Naive has workers park without a second look.
func (s *Scheduler) Naive() { s.core.naive = true }

// Slots returns how many slots are neither free nor unused.
func (s *Scheduler) Slots() int {
	n := 0
	for class := range s.core.pools {
		n += s.core.pools[class].inUse(s.core, class)
	}
	return n
}

// inUse counts the slots of fibers, of a scheduler whose workers are idle.
func (p *pool) inUse(c *core, class int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	count := func(l uintptr, all bool) {
		for l != 0 {
			k := (*chunk)(pointer(l))
			n += int(k.used)
			if l = k.next; !all {
				return
			}
		}
	}
	count(p.chunk, false)
	count(p.chunks, true)
	for b := p.batches; b != 0; b = b.fiber().prev {
		n -= int(batchOf(class))
	}
	for l := p.odd; l != 0; l = l.fiber().next {
		n--
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for l := c.outside[class]; l != 0; l = l.fiber().next {
		n--
	}
	return n
}

// Forged returns a handle that nobody was given.
func Forged(h Fiber, serial uint64, at uint32) Fiber {
	if at != 0 {
		h.at = link(at)
	}
	h.serial += serial
	return h
}
