package sched

import (
	"math/bits"
	"unsafe"
)

// A wheel has entries in the order of their instants, those of one instant in
// the order in which they came. To add and to remove one takes constant time,
// whatever the number.
//
// An instant is a number of eleven digits to the base 64. Level i, slot d has
// the entries that agree with now in the digits above i, and have digit i = d,
// which is more than now's: so the first entry is in the first slot of the
// lowest level that has any. When now comes there, the slot is dealt out to the
// levels below, in order; in level 0 all of a slot are of one instant. Nothing
// depends on how fast time passes, and nothing is looked at in vain.
//
// Rejected: a heap with four children to a node, in which each entry moves a
// dozen others, and which wants memory for its places that may not be had when a
// wait begins. Wheels of fixed ticks lose the order within a tick.
type wheel struct {
	now    int64 // no entry is before that
	n      uint64
	levels uint32 // bit i: level i has entries
	slots  [wheelLevels]uint64
	lists  [wheelLevels][1 << wheelBits]struct{ first, last uintptr }
}

const (
	wheelBits   = 6
	wheelLevels = 11
)

// An entry is an instant that something waits for. It lies in what waits.
type entry struct {
	next, prev uintptr // *entry, in the list of its slot
	at         int64
	core       uintptr // *core in whose wheel it is, or 0
	owner      uintptr // *fiber, or *Timer
	timer      bool    // it is a *Timer
}

func entryAt(addr uintptr) *entry { return (*entry)(pointer(addr)) }

// place returns where e belongs.
func (t *wheel) place(at int64) (level, slot uint) {
	if x := uint64(at ^ t.now); x != 0 {
		level = uint(bits.Len64(x)-1) / wheelBits
	}
	return level, uint(uint64(at)>>(level*wheelBits)) % (1 << wheelBits)
}

// add adds e. An instant that is over counts as now, the last time that the
// wheel was looked at.
func (t *wheel) add(e *entry, at int64) {
	e.at = max(at, t.now)
	t.n++
	t.put(e)
}

func (t *wheel) put(e *entry) {
	level, slot := t.place(e.at)
	l := &t.lists[level][slot]
	at := uintptr(unsafe.Pointer(e))
	e.next, e.prev = 0, l.last
	if l.last == 0 {
		l.first = at
		t.slots[level] |= 1 << slot
		t.levels |= 1 << level
	} else {
		entryAt(l.last).next = at
	}
	l.last = at
}

// remove takes e out, which is there.
func (t *wheel) remove(e *entry) {
	level, slot := t.place(e.at)
	l := &t.lists[level][slot]
	if e.prev == 0 {
		l.first = e.next
	} else {
		entryAt(e.prev).next = e.next
	}
	if e.next == 0 {
		l.last = e.prev
	} else {
		entryAt(e.next).prev = e.prev
	}
	if l.first == 0 {
		t.clear(level, slot)
	}
	t.n--
}

func (t *wheel) clear(level, slot uint) {
	if t.slots[level] &^= 1 << slot; t.slots[level] == 0 {
		t.levels &^= 1 << level
	}
}

// lowest returns the slot of the first entry, and its first instant; there is one.
func (t *wheel) lowest() (level, slot uint, start int64) {
	level = uint(bits.TrailingZeros32(t.levels))
	slot = uint(bits.TrailingZeros64(t.slots[level]))
	above := uint64(t.now) >> ((level + 1) * wheelBits) << ((level + 1) * wheelBits)
	return level, slot, int64(above | uint64(slot)<<(level*wheelBits))
}

// due returns the first entry, if its instant is not after now, and leaves it there.
func (t *wheel) due(now int64) *entry {
	for t.levels != 0 {
		level, slot, start := t.lowest()
		if start > now {
			return nil
		}
		t.now = start
		l := &t.lists[level][slot]
		if level == 0 {
			return entryAt(l.first)
		}
		at := l.first
		l.first, l.last = 0, 0
		t.clear(level, slot)
		for at != 0 {
			e := entryAt(at)
			at = e.next
			t.put(e)
		}
	}
	return nil
}

// next returns an instant that is not after the first entry's, nor before it if
// there are few in its slot; 0 if there is none.
func (t *wheel) next() int64 {
	if t.levels == 0 {
		return 0
	}
	level, slot, start := t.lowest()
	if level == 0 {
		return start
	}
	first, at := int64(1<<63-1), t.lists[level][slot].first
	for range 16 {
		if at == 0 {
			return first
		}
		e := entryAt(at)
		first, at = min(first, e.at), e.next
	}
	return start
}

// any returns some entry, or nil.
func (t *wheel) any() *entry {
	if t.levels == 0 {
		return nil
	}
	level, slot, _ := t.lowest()
	return entryAt(t.lists[level][slot].first)
}
