// Values that go to places which others name, several perhaps the same one: the same bits in every run, whoever comes first.

// target[places[i]] += the values of all that name the place, in their order. places are sorted; value i is values[order[i]].
// The first thread of those that name a place adds for all.
extern "C" __global__ void add_runs(int count, const long long* places, const long long* order, const STORAGE* values,
                                    STORAGE* target) {
    FOR_EACH(i, count) {
        const long long place = places[i];
        if (i > 0 && places[i - 1] == place) continue;
        ACCUMULATE sum = load(target[place]);
        for (int j = i; j < count && places[j] == place; ++j) sum += load(values[order[j]]);
        store(target[place], sum);
    }
}

// last[places[i]] = the greatest i that names the place; last holds -1 before.
extern "C" __global__ void note_last(int count, const long long* places, int* last) {
    FOR_EACH(i, count) { atomicMax(last + places[i], i); }
}

// target[p] = values[last[p]] where last[p] is not -1.
extern "C" __global__ void put_noted(int count, const int* last, const STORAGE* values, STORAGE* target) {
    FOR_EACH(p, count) {
        if (last[p] >= 0) target[p] = values[last[p]];
    }
}
