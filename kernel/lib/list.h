/*
 * kernel/lib/list.h: intrusive doubly linked lists. A list is a node whose neighbours are the members.
 *
 * Used everywhere. A removed node points at itself, so list_remove twice is harmless and list_linked tells.
 */
#ifndef LIB_LIST_H
#define LIB_LIST_H

#include <stddef.h>

struct list_node {
    struct list_node *next, *prev;
};

#define list_entry(node, type, member) ((type *)((char *)(node) - offsetof(type, member)))
#define list_for_each(node, list) for (struct list_node *node = (list)->next; node != (list); node = node->next)

static inline void list_init(struct list_node *list) { list->next = list->prev = list; }
static inline int list_empty(const struct list_node *list) { return list->next == list; }
static inline int list_linked(const struct list_node *node) { return node->next != node; }
static inline void list_insert_before(struct list_node *at, struct list_node *node) {
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}
static inline void list_append(struct list_node *list, struct list_node *node) { list_insert_before(list, node); }
static inline void list_prepend(struct list_node *list, struct list_node *node) {
    list_insert_before(list->next, node);
}
static inline void list_remove(struct list_node *node) {
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}
static inline struct list_node *list_pop(struct list_node *list) {
    if (list_empty(list))
        return NULL;
    struct list_node *node = list->next;
    list_remove(node);
    return node;
}
/* Moves all members of `from` to the empty list `to`. */
static inline void list_take(struct list_node *to, struct list_node *from) {
    list_init(to);
    if (list_empty(from))
        return;
    to->next = from->next;
    to->prev = from->prev;
    to->next->prev = to->prev->next = to;
    list_init(from);
}
/* Moves all members of `from` behind those of `to`. */
static inline void list_append_all(struct list_node *to, struct list_node *from) {
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    from->prev->next = to;
    to->prev->next = from->next;
    to->prev = from->prev;
    list_init(from);
}

#endif
