// Sequence is one subscriber's place in one publisher's numbers, which count from 1.
export class Sequence {
  constructor() {
    this.next = 1;
    this.missing = new Set();
    this.repeated = 0;
    this.reordered = 0;
    this.ended = false; // the publisher's last message has come
  }

  take({ number, last }) {
    this.ended = this.ended || last;
    if (number === this.next) {
      this.next++;
    } else if (number > this.next) {
      for (; this.next < number; this.next++) {
        this.missing.add(this.next);
      }
      this.next++;
    } else if (this.missing.delete(number)) {
      this.reordered++;
    } else {
      this.repeated++;
    }
  }

  // lost counts one for an end that never came, since nobody told how much was before it.
  lost() {
    return this.missing.size + (this.ended ? 0 : 1);
  }
}
